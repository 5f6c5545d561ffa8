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
    """Returns `act_type` of every element; of `[gate, up] [..., 2h]`, SWIGLU returns `silu(gate) * up [..., h]`."""
    return record(Activation(act_type, scale, dim, gelu_mode), (input_,))[0]


def softmax(input_tensor: Tensor, dims: int | Sequence[int]) -> Tensor:
    """Returns the softmax over consecutive dimensions, in the same shape."""
    return record(Softmax((dims,) if isinstance(dims, int) else tuple(dims)), (input_tensor,))[0]
