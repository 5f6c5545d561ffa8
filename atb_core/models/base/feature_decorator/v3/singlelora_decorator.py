# SPDX-License-Identifier: Apache-2.0
"""The feature of one adapter in a step, under the import path that models written for ATB-Models use."""

from atb_core.features import FeatureDecorator
from atb_core.features.step import Step

__all__ = ["SingleLoraDecorator"]


class SingleLoraDecorator(FeatureDecorator):
    """Stands for the feature, which is not in this version: models refuse steps that name adapters."""

    feature_name = "single_lora"
    is_enabled = False

    def is_activated(self, meta: Step) -> bool:
        """Returns false."""
        return False
