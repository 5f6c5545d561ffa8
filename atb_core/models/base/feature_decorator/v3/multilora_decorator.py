# SPDX-License-Identifier: Apache-2.0
"""The feature of several adapters in a step, under the import path that models written for ATB-Models use."""

from atb_core.features import FeatureDecorator
from atb_core.features.step import Step

__all__ = ["MultiLoraDecorator"]


class MultiLoraDecorator(FeatureDecorator):
    """Stands for the feature, which is not in this version: models refuse steps that name adapters."""

    feature_name = "multi_lora"
    is_enabled = False

    def is_activated(self, meta: Step) -> bool:
        """Returns false."""
        return False
