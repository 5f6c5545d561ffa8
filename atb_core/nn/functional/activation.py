# SPDX-License-Identifier: Apache-2.0
"""Activation functions and softmax."""

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
    """Applies an activation function to every element.

    SWIGLU takes `[..., 2h]`, which holds `[gate, up]`, and returns `silu(gate) * up`, `[..., h]`.

    Args:
        input_: any shape.
        act_type: the activation function.
        scale: factor inside SWISH: `x * sigmoid(scale * x)`.
        dim: dimension that SWIGLU halves; only the last one is supported.
        gelu_mode: variant of GELU.
    """
    return record(Activation(act_type, scale, dim, gelu_mode), (input_,))[0]


def softmax(input_tensor: Tensor, dims: int | Sequence[int]) -> Tensor:
    """Computes the softmax over consecutive dimensions; the shape does not change."""
    return record(Softmax((dims,) if isinstance(dims, int) else tuple(dims)), (input_tensor,))[0]
