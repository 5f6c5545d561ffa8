# SPDX-License-Identifier: Apache-2.0
"""The base of features under the import path that models written for ATB-Models use."""

from atb_core.features import FeatureDecorator

__all__ = ["FeatureDecorator"]
