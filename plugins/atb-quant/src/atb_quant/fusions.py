# SPDX-License-Identifier: Apache-2.0
"""Fusions of products of integers and the scales behind them, which keep the bits; names are those of ATB-Models.

ATB has no product of integers without scales, so there the passes are needed, as they are in the original. A bias in
floats behind the scales of rows stays an addition: ATB's product takes none beside them.
"""

from __future__ import annotations

from collections.abc import Callable

from atb_core.graph import DataType, Network, Tensor, record
from atb_core.graph.ops import Cast, QuantLinear
from atb_core.graph.passes import Fusion, Match, Pass
from atb_quant.functions import quantized_linear

_DTYPES = (DataType.FLOAT, DataType.FLOAT16, DataType.BF16)


def _sums(x: Tensor, weight: Tensor, transpose_b: bool) -> Tensor:
    return record(QuantLinear(DataType.INT32, transpose_b), (x, weight))[0]


def _floats(sums: Tensor, scale: Tensor) -> Tensor:
    return record(Cast(DataType.FLOAT), (sums,))[0] * scale


def _by_tensor(dtype: DataType) -> Fusion:
    def pattern(x: Tensor, weight: Tensor, scale: Tensor, *, transpose_b: bool) -> Tensor:
        return _floats(_sums(x, weight, transpose_b), scale).to(dtype)

    def replacement(x: Tensor, weight: Tensor, scale: Tensor, *, transpose_b: bool) -> Tensor:
        return quantized_linear(x, weight, scale, dtype, transpose_b=transpose_b)

    return Fusion(pattern, replacement, _fits)


def _with_bias(dtype: DataType) -> Fusion:
    def pattern(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor, *, transpose_b: bool) -> Tensor:
        return _floats(_sums(x, weight, transpose_b) + bias, scale).to(dtype)

    def replacement(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor, *, transpose_b: bool) -> Tensor:
        return quantized_linear(x, weight, scale, dtype, bias=bias, transpose_b=transpose_b)

    return Fusion(pattern, replacement, _fits)


def _by_token(dtype: DataType) -> Fusion:
    def pattern(x: Tensor, weight: Tensor, scale: Tensor, token: Tensor, *, transpose_b: bool) -> Tensor:
        return (_floats(_sums(x, weight, transpose_b), scale) * token).to(dtype)

    def replacement(x: Tensor, weight: Tensor, scale: Tensor, token: Tensor, *, transpose_b: bool) -> Tensor:
        rows = token.reshape(lambda shape: shape[:-1])
        return quantized_linear(x, weight, scale, dtype, rows, transpose_b=transpose_b)

    return Fusion(pattern, replacement, _fits)


def _fits(match: Match) -> bool:
    """Returns true where factors are those of columns, of rows and of nothing else."""
    given = match.tensors
    x, weight, scale = given["x"], given["weight"], given["scale"]
    if x.shape is None or weight.shape is None:
        return False
    columns = (weight.shape[0 if match.attributes["transpose_b"] else 1],)
    bias, token = given.get("bias"), given.get("token")
    return (
        (scale.shape, scale.dtype) == (columns, DataType.FLOAT)
        and (bias is None or bias.shape == columns)
        and (token is None or (token.shape, token.dtype) == ((*x.shape[:-1], 1), DataType.FLOAT))
    )


def _pass(name: str, fusion: Callable[[DataType], Fusion]) -> Pass:
    """Returns the pass of a fusion for results of each floating-point type."""
    fusions = [fusion(dtype) for dtype in _DTYPES]

    def run(network: Network) -> Network:
        for each in fusions:
            network = each(network)
        return network

    return Pass(name, run, "QuantLinear")


PASSES = [
    _pass("W8A8LinearDequantPerToken", _by_token),
    _pass("W8A8LinearWithBiasDequantPerTensor", _with_bias),
    _pass("W8A8LinearDequantPerTensor", _by_tensor),
]
