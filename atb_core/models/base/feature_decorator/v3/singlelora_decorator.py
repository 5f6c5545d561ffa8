# SPDX-License-Identifier: Apache-2.0
"""A feature of LoRA under the import path that models written for ATB-Models use."""

from atb_core.features.adapters import lora_feature

__all__ = ["SingleLoraDecorator"]

SingleLoraDecorator = lora_feature("SingleLoraDecorator")
