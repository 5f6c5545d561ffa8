# SPDX-License-Identifier: Apache-2.0
"""Matrix products, norms, activation functions and softmax."""

from __future__ import annotations

from collections.abc import Sequence

from atb_core.graph.dtype import DataType
from atb_core.graph.network import record
from atb_core.graph.op import as_tuple
from atb_core.graph.ops.activation import Activation, ActivationType, GeluMode
from atb_core.graph.ops.linear import BatchMatmul, Linear
from atb_core.graph.ops.lora import Lora
from atb_core.graph.ops.norm import LayerNorm, RmsNorm
from atb_core.graph.ops.quant import QuantLinear
from atb_core.graph.ops.reduction import Softmax
from atb_core.graph.tensor import Tensor

__all__ = ["ActType", "activation", "batch_matmul", "layer_norm", "linear", "lora", "rms_norm", "softmax"]

ActType = ActivationType


def linear(
    input_: Tensor, weight: Tensor, bias: Tensor | None = None, transpose_a: bool = False, transpose_b: bool = True
) -> Tensor:
    """Multiplies by a weight and adds a bias.

    input_ `[..., k]`, weight `[n, k]` with `transpose_b`, else `[k, n]`, bias `[n]` -> `[..., n]`. With int8 input
    the weight is int8, the bias int32, and the result the exact sums as int32.
    """
    if input_.dtype is DataType.INT8 and not transpose_a:
        sums = QuantLinear(DataType.INT32, transpose_b, has_bias=bias is not None)
        return record(sums, (input_, weight) if bias is None else (input_, weight, bias))[0]
    op = Linear(transpose_a, transpose_b, bias is not None)
    return record(op, (input_, weight) if bias is None else (input_, weight, bias))[0]


def lora(
    input_: Tensor,
    x: Tensor,
    a: Tensor,
    b: Tensor,
    bias: Tensor,
    slots: Tensor,
    ranks: Tensor,
    sizes: Sequence[int],
    first: int = 0,
) -> Tensor:
    """Adds to a linear's result the low-rank product of each row's adapter.

    Args:
        input_: result of the linear, `[T, N]`.
        x: input of the linear, `[T, k]`.
        a: first matrices of S adapters, `[S, parts * R, k]`.
        b: second matrices, `[S, R, N]`.
        bias: added with the product, `[S, N]`.
        slots: the adapter of each row, int32 `[T]`, or `[1]` for all; negative: none.
        ranks: rank of each part in each adapter, int32 `[S, M]`; 0: nothing is added.
        sizes: the columns of each part of the linear, N together.
        first: column of `ranks` for the first part.
    """
    return record(Lora(as_tuple(sizes), first), (input_, x, a, b, bias, slots, ranks))[0]


def batch_matmul(input_: Tensor, weight: Tensor, transpose_b: bool = False) -> Tensor:
    """Multiplies each matrix of a batch by one of its own.

    input_ `[b, m, k]`, weight `[b, k, n]`, with `transpose_b` `[b, n, k]` -> `[b, m, n]`.
    """
    return record(BatchMatmul(transpose_b), (input_, weight))[0]


def rms_norm(input_: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Normalizes the last dimension by its root mean square: input_ `[..., h]`, weight `[h]` -> `[..., h]`.

    The weight has the input's dtype or float32; the result has the input's.
    """
    return record(RmsNorm(eps), (input_, weight))[0]


def layer_norm(input_: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """Normalizes the last dimension by mean and variance: input_ `[..., h]`, weight and bias `[h]` -> `[..., h]`.

    Weight and bias have the input's dtype or float32; the result has the input's.
    """
    return record(LayerNorm(eps), (input_, weight, bias))[0]


def activation(
    input_: Tensor, act_type: ActType, scale: float = 1.0, dim: int = -1, gelu_mode: GeluMode = GeluMode.TANH
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
    return record(Softmax(as_tuple(dims)), (input_tensor,))[0]
