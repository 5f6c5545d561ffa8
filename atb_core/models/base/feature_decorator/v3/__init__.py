# SPDX-License-Identifier: Apache-2.0
"""Features under the import path that models written for ATB-Models use."""

from atb_core.features import FeatureDecorator
from atb_core.features.adapters import lora_feature

__all__ = ["FeatureDecorator"]

# SingleLoraDecorator and MultiLoraDecorator, when they are asked for.
__getattr__ = lora_feature
