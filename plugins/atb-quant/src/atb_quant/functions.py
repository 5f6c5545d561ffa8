# SPDX-License-Identifier: Apache-2.0
"""The functions of `nn.quantized`: activations as integers of 8 bits, and products of integers.

Names and arguments are those of `atb_llm.nn.quantized`; `quantized_linear` has the scales in the product, which the
original reaches by fusing `linear` and `dequantize`.
"""

from __future__ import annotations

from atb_core.errors import GraphError
from atb_core.graph import DataType, Tensor, record
from atb_core.graph.ops import DynamicQuant, QuantLinear, QuantPerChannel

__all__ = ["dequantize", "quantize_per_channel", "quantize_per_token", "quantized_linear"]


def quantize_per_channel(input_: Tensor, scales: Tensor, zero_points: Tensor) -> Tensor:
    """Rounds to integers by given scales: `clamp(round(input_ / scales + zero_points), -128, 127)`.

    Args:
        input_: floats `[..., h]`.
        scales: of `input_`'s dtype or float32, one for all, `[1]`, or for each column, `[h]`.
        zero_points: int8, as many as scales.

    Returns:
        int8 `[..., h]`.
    """
    return record(QuantPerChannel(), (input_, scales, zero_points))[0]


def quantize_per_token(input_: Tensor) -> tuple[Tensor, Tensor]:
    """Rounds each row to integers by a scale of its own, its largest magnitude / 127.

    Args:
        input_: floats `[..., h]`.

    Returns:
        int8 `[..., h]`, and the scales, float32 `[...]`.
    """
    values, scales = record(DynamicQuant(), (input_,))
    return values, scales


def quantized_linear(
    x: Tensor,
    weight: Tensor,
    deq_scale: Tensor,
    output_dtype: DataType,
    token_scale: Tensor | None = None,
    bias: Tensor | None = None,
    transpose_b: bool = True,
) -> Tensor:
    """Multiplies integers: `(x weight + bias) deq_scale token_scale`, with an exact sum.

    Args:
        x: int8 `[..., k]`.
        weight: int8 `[n, k]` with `transpose_b`, else `[k, n]`.
        deq_scale: `[n]`, float32, or int64 with the bits of a float32 in the low half.
        output_dtype: of the result, a floating-point type.
        token_scale: float32 `[...]`, of each row.
        bias: int32 `[n]`.
        transpose_b: the layout of the weight.

    Returns:
        `[..., n]`.
    """
    if not output_dtype.is_float:
        raise GraphError(f"quantized_linear gives floats, not {output_dtype.short}", hint="linear gives the sums.")
    op = QuantLinear(output_dtype, transpose_b, token_scale is not None, bias is not None)
    return record(op, [each for each in (x, weight, deq_scale, token_scale, bias) if each is not None])[0]


def dequantize(
    input_: Tensor,
    weight_scale: Tensor,
    output_dtype: DataType,
    activation_scale: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Scales the sums of a product of integers: `(input_ + bias) weight_scale activation_scale`.

    Args:
        input_: int32 `[..., n]`, the result of `linear` of int8.
        weight_scale: floats `[n]`.
        output_dtype: of the result.
        activation_scale: float32 `[...]`, of each row.
        bias: int32 `[n]`.

    Returns:
        `[..., n]` of `output_dtype`, rounded once.

    Raises:
        GraphError: the scales are the bits of floats in integers.
    """
    if weight_scale.dtype is not None and not weight_scale.dtype.is_float:
        raise GraphError(
            f"dequantize takes floats as weight_scale, not {weight_scale.dtype.short}",
            hint="quantized_linear also takes the bits of float32 in int64.",
        )
    scale = weight_scale if weight_scale.dtype is DataType.FLOAT else weight_scale.to(DataType.FLOAT)
    y = (input_ if bias is None else input_ + bias).to(DataType.FLOAT) * scale
    if activation_scale is not None:
        y = y * activation_scale.reshape(lambda shape: [*shape, 1])
    return y.to(output_dtype)
