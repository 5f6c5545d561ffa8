# SPDX-License-Identifier: Apache-2.0
"""Primitive modules: one op and its weights, without any loading."""

from __future__ import annotations

from atb_core.nn.modules.linear import Linear
from atb_core.nn.modules.normalization import RmsNorm

__all__ = ["Linear", "RmsNorm"]
