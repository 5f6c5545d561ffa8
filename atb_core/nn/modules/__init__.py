# SPDX-License-Identifier: Apache-2.0
"""Primitive modules: one op with its weights; loading is not part of them."""

from __future__ import annotations

from atb_core.nn.modules.linear import Linear
from atb_core.nn.modules.normalization import RmsNorm

__all__ = ["Linear", "RmsNorm"]
