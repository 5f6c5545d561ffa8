# SPDX-License-Identifier: Apache-2.0
"""Fusion of the split, SiLU and product of a packed gate-and-up projection into SWIGLU."""

from __future__ import annotations

from atb_core.graph.network import record
from atb_core.graph.ops.activation import Activation, ActivationType
from atb_core.graph.ops.movement import Split
from atb_core.graph.passes.pattern import Fusion, Match
from atb_core.graph.tensor import Tensor


def pattern(gate_up: Tensor, *, dim: int, sizes: tuple[int, ...]) -> Tensor:
    """Records `silu(gate) * up` of a split projection, as models write it."""
    gate, up = record(Split(dim, 2, sizes), (gate_up,))
    return record(Activation(ActivationType.SWISH), (gate,))[0] * up


def replacement(gate_up: Tensor, *, dim: int, sizes: tuple[int, ...]) -> Tensor:
    """Records SWIGLU, which rounds once where the unfused ops also round `silu(gate)`, and is therefore more exact."""
    return record(Activation(ActivationType.SWIGLU), (gate_up,))[0]


def where(match: Match) -> bool:
    """Returns `True` if the split halves the last dimension."""
    shape, sizes = match.tensors["gate_up"].shape, match.attributes["sizes"]
    return shape is not None and match.attributes["dim"] == len(shape) - 1 and len(set(sizes)) == 1


fuse_swiglu = Fusion(pattern, replacement, where)
