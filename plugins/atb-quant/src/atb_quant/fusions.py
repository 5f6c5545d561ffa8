# SPDX-License-Identifier: Apache-2.0
"""Fusions of products of integers and what is behind them, which keep the bits.

Those with scales have the names of ATB-Models. ATB has no product of integers without scales, so there these passes are
needed, as they are in the original. A bias in floats behind the scales of rows stays an addition: ATB's product takes
none beside them.
"""

from __future__ import annotations

from collections.abc import Callable

from atb_core.graph import DataType, Network, Tensor, record
from atb_core.graph.ops import Activation, ActivationType, Cast, QuantLinear, QuantLinearSwiglu
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


def _gated(token: bool, bias: bool) -> Callable[[DataType], Fusion]:
    def made(dtype: DataType) -> Fusion:
        def chain(operands: tuple[Tensor, ...], transpose_b: bool) -> Tensor:
            (product,) = record(QuantLinear(dtype, transpose_b, token, bias), operands)
            return record(Activation(ActivationType.SWIGLU), (product,))[0]

        def three(x: Tensor, weight: Tensor, scale: Tensor, *, transpose_b: bool) -> Tensor:
            return chain((x, weight, scale), transpose_b)

        def four(x: Tensor, weight: Tensor, scale: Tensor, other: Tensor, *, transpose_b: bool) -> Tensor:
            return chain((x, weight, scale, other), transpose_b)

        def replacement(*operands: Tensor, transpose_b: bool) -> Tensor:
            return record(QuantLinearSwiglu(dtype, transpose_b, token, bias), operands)[0]

        return Fusion(four if token or bias else three, replacement)

    return made


def _pass(name: str, *fusions: Callable[[DataType], Fusion], makes: str = "QuantLinear") -> Pass:
    """Returns the pass of fusions for results of each floating-point type."""
    every = [fusion(dtype) for fusion in fusions for dtype in _DTYPES]

    def run(network: Network) -> Network:
        for each in every:
            network = each(network)
        return network

    return Pass(name, run, makes)


PASSES = [
    _pass("W8A8LinearDequantPerToken", _by_token),
    _pass("W8A8LinearWithBiasDequantPerTensor", _with_bias),
    _pass("W8A8LinearDequantPerTensor", _by_tensor),
    # Behind those that make the products. With scales of rows there is no bias: it is an addition of floats.
    _pass(
        "QuantLinearSwiglu", _gated(True, False), _gated(False, True), _gated(False, False), makes="QuantLinearSwiglu"
    ),
]
