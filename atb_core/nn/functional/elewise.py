# SPDX-License-Identifier: Apache-2.0
"""Elementwise functions and reductions."""

from __future__ import annotations

from collections.abc import Sequence

from atb_core.graph.network import record
from atb_core.graph.op import as_tuple
from atb_core.graph.ops.elewise import Elewise, ElewiseType
from atb_core.graph.ops.reduction import Reduce, ReduceType
from atb_core.graph.tensor import Tensor

__all__ = ["amax", "amin", "cos", "equal", "logical_and", "logical_not", "logical_or", "neg", "sin", "sum_", "tanh"]


def cos(input_: Tensor) -> Tensor:
    """Computes the cosine of every element, in radians."""
    return record(Elewise(ElewiseType.COS), (input_,))[0]


def sin(input_: Tensor) -> Tensor:
    """Computes the sine of every element, in radians."""
    return record(Elewise(ElewiseType.SIN), (input_,))[0]


def neg(input_: Tensor) -> Tensor:
    """Negates every element."""
    return record(Elewise(ElewiseType.NEG), (input_,))[0]


def tanh(input_: Tensor) -> Tensor:
    """Computes the hyperbolic tangent of every element."""
    return record(Elewise(ElewiseType.TANH), (input_,))[0]


def logical_not(input_: Tensor) -> Tensor:
    """Returns 1 where `input_` is 0, else 0, as int8."""
    return record(Elewise(ElewiseType.LOGICAL_NOT), (input_,))[0]


def logical_or(input_: Tensor, other: Tensor) -> Tensor:
    """Returns 1 where `input_` or `other` is not 0, else 0, as int8; the two broadcast."""
    return record(Elewise(ElewiseType.LOGICAL_OR), (input_, other))[0]


def logical_and(input_: Tensor, other: Tensor) -> Tensor:
    """Returns 1 where neither `input_` nor `other` is 0, else 0, as int8; the two broadcast."""
    return record(Elewise(ElewiseType.LOGICAL_AND), (input_, other))[0]


def equal(input_: Tensor, other: Tensor) -> Tensor:
    """Returns 1 where `input_` equals `other`, else 0, as int8; the two broadcast."""
    return record(Elewise(ElewiseType.EQUAL), (input_, other))[0]


def amax(input_: Tensor, dims: int | Sequence[int]) -> Tensor:
    """Computes the maximum over `dims`, which are removed."""
    return _reduce(ReduceType.MAX, input_, dims)


def amin(input_: Tensor, dims: int | Sequence[int]) -> Tensor:
    """Computes the minimum over `dims`, which are removed."""
    return _reduce(ReduceType.MIN, input_, dims)


def sum_(input_: Tensor, dims: int | Sequence[int]) -> Tensor:
    """Computes the sum over `dims`, which are removed."""
    return _reduce(ReduceType.SUM, input_, dims)


def _reduce(kind: ReduceType, x: Tensor, dims: int | Sequence[int]) -> Tensor:
    return record(Reduce(kind, as_tuple(dims)), (x,))[0]
