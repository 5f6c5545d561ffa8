# SPDX-License-Identifier: Apache-2.0
"""Fusion of a residual addition and the RMS norm that follows it."""

from __future__ import annotations

from atb_core.graph.network import record
from atb_core.graph.ops.norm import AddRmsNorm, RmsNorm
from atb_core.graph.passes.pattern import Fusion, Match
from atb_core.graph.tensor import Tensor


def pattern(a: Tensor, b: Tensor, weight: Tensor, *, eps: float) -> tuple[Tensor, Tensor]:
    """Records an addition followed by `RmsNorm`, as models write it."""
    total = a + b
    return record(RmsNorm(eps), (total, weight))[0], total


def replacement(a: Tensor, b: Tensor, weight: Tensor, *, eps: float) -> tuple[Tensor, Tensor]:
    """Records the fused `AddRmsNorm`."""
    normalized, _, total = record(AddRmsNorm(eps), (a, b, weight))
    return normalized, total


def where(match: Match) -> bool:
    """Returns `True` if both operands have the same known shape and dtype, which excludes a broadcast bias."""
    a, b = match.tensors["a"], match.tensors["b"]
    return a.shape is not None and a.shape == b.shape and a.dtype == b.dtype


fuse_add_rms_norm = Fusion(pattern, replacement, where)
