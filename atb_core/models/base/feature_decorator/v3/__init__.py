# SPDX-License-Identifier: Apache-2.0
"""Features under the import path that models written for ATB-Models use."""

from atb_core.features import FeatureDecorator
from atb_core.features.lora import MultiLoraDecorator, SingleLoraDecorator

__all__ = ["FeatureDecorator", "MultiLoraDecorator", "SingleLoraDecorator"]
