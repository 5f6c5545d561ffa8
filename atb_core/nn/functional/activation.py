# SPDX-License-Identifier: Apache-2.0
"""Activations and softmax."""

from __future__ import annotations

from collections.abc import Sequence

from atb_core.graph.network import record
from atb_core.graph.ops.activation import Activation, ActivationType, GeluMode
from atb_core.graph.ops.reduction import Softmax
from atb_core.graph.tensor import Tensor

ActType = ActivationType


def activation(
    input_: Tensor,
    act_type: ActType,
    scale: float = 1.0,
    dim: int = -1,
    gelu_mode: GeluMode = GeluMode.TANH,
) -> Tensor:
    """`act_type` of every element; SWIGLU takes [..., 2h] = [gate, up] and gives silu(gate) * up, [..., h]."""
    return record(Activation(act_type, scale, dim, gelu_mode), (input_,))[0]


def softmax(x: Tensor, dims: int | Sequence[int]) -> Tensor:
    """Softmax over consecutive dimensions; the shape stays."""
    return record(Softmax((dims,) if isinstance(dims, int) else tuple(dims)), (x,))[0]
