# SPDX-License-Identifier: Apache-2.0
"""Elementwise functions and reductions."""

from __future__ import annotations

from collections.abc import Sequence

from atb_core.graph.network import record
from atb_core.graph.ops.elewise import Elewise, ElewiseType
from atb_core.graph.ops.reduction import Reduce, ReduceType
from atb_core.graph.tensor import Tensor


def cos(x: Tensor) -> Tensor:
    """Computes the cosine of every element, in radians."""
    return record(Elewise(ElewiseType.COS), (x,))[0]


def sin(x: Tensor) -> Tensor:
    """Computes the sine of every element, in radians."""
    return record(Elewise(ElewiseType.SIN), (x,))[0]


def neg(x: Tensor) -> Tensor:
    """Negates every element."""
    return record(Elewise(ElewiseType.NEG), (x,))[0]


def tanh(x: Tensor) -> Tensor:
    """Computes the hyperbolic tangent of every element."""
    return record(Elewise(ElewiseType.TANH), (x,))[0]


def logical_not(x: Tensor) -> Tensor:
    """Returns 1 where x is 0, else 0, as int8."""
    return record(Elewise(ElewiseType.LOGICAL_NOT), (x,))[0]


def logical_or(x: Tensor, y: Tensor) -> Tensor:
    """Returns 1 where x or y is not 0, else 0, as int8; x and y broadcast."""
    return record(Elewise(ElewiseType.LOGICAL_OR), (x, y))[0]


def logical_and(x: Tensor, y: Tensor) -> Tensor:
    """Returns 1 where both x and y are not 0, else 0, as int8; x and y broadcast."""
    return record(Elewise(ElewiseType.LOGICAL_AND), (x, y))[0]


def equal(x: Tensor, y: Tensor) -> Tensor:
    """Returns 1 where x equals y, else 0, as int8; x and y broadcast."""
    return record(Elewise(ElewiseType.EQUAL), (x, y))[0]


def amax(x: Tensor, dims: int | Sequence[int]) -> Tensor:
    """Computes the maximum over `dims`, which are removed."""
    return _reduce(ReduceType.MAX, x, dims)


def amin(x: Tensor, dims: int | Sequence[int]) -> Tensor:
    """Computes the minimum over `dims`, which are removed."""
    return _reduce(ReduceType.MIN, x, dims)


def sum_(x: Tensor, dims: int | Sequence[int]) -> Tensor:
    """Computes the sum over `dims`, which are removed."""
    return _reduce(ReduceType.SUM, x, dims)


def _reduce(kind: ReduceType, x: Tensor, dims: int | Sequence[int]) -> Tensor:
    return record(Reduce(kind, (dims,) if isinstance(dims, int) else tuple(dims)), (x,))[0]
