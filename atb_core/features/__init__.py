# SPDX-License-Identifier: Apache-2.0
"""Features that stack on models."""

from atb_core.features.base import ANY_FEATURE, BASE_FEATURES, FeatureDecorator, check_stacking
from atb_core.features.by_name import FEATURES, check_enabled, features_by_name

__all__ = [
    "ANY_FEATURE", "BASE_FEATURES", "FEATURES", "FeatureDecorator", "check_enabled", "check_stacking",
    "features_by_name",
]  # fmt: skip
