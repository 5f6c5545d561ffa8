# SPDX-License-Identifier: Apache-2.0
"""The type of a weight loader under the import path that models written for ATB-Models use."""

from atb_core.checkpoint import WeightLoader as SafetensorFileLoader

__all__ = ["SafetensorFileLoader"]
