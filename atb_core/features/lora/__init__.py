# SPDX-License-Identifier: Apache-2.0
"""LoRA: adapters in PEFT's format that run on top of a model, one or several in a step."""

from atb_core.features.lora.adapter import Adapter
from atb_core.features.lora.decorators import LoraDecorator, MultiLoraDecorator, SingleLoraDecorator
from atb_core.features.lora.manager import BASE_NAMES, LoraManager

__all__ = ["BASE_NAMES", "Adapter", "LoraDecorator", "LoraManager", "MultiLoraDecorator", "SingleLoraDecorator"]
