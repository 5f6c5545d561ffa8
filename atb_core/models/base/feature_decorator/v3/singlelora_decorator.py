# SPDX-License-Identifier: Apache-2.0
"""A feature of LoRA under the import path that models written for ATB-Models use."""

from atb_core.features.lora import SingleLoraDecorator

__all__ = ["SingleLoraDecorator"]
