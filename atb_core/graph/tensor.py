# SPDX-License-Identifier: Apache-2.0
"""Symbolic tensors: the values that a model's `forward` handles while its network is recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from atb_core.errors import GraphError
from atb_core.extensions import Port
from atb_core.graph.dim import DimLike, Shape, checked_shape, shape_text
from atb_core.graph.dtype import DataType
from atb_core.graph.op import Op, as_tuple
from atb_core.graph.ops.elewise import Elewise, ElewiseType
from atb_core.graph.ops.movement import Cast, Repeat, Slice, Transpose
from atb_core.graph.ops.view import Assign, Reshape

ShapeFunction: TypeAlias = Callable[[list[DimLike]], Sequence[DimLike]]


#: Records an op into the current network. Networks hold tensors, so the function stands above this module.
_recorder: Port[Callable[[Op, Sequence[Tensor]], tuple[Tensor, ...]]] = Port("recorder")


@dataclass(eq=False, slots=True)
class Tensor:
    """Symbolic value in a network, compared by identity.

    Arithmetic and the methods below record nodes into the current network.

    Attributes:
        name: name of an input or output; `None` for other values.
        shape: sizes as ints and `Dim`s; `None` if unknown until real tensors arrive.
        dtype: element type; `None` if unknown until real tensors arrive.
    """

    name: str | None = None
    shape: Shape | None = None
    dtype: DataType | None = None

    def __post_init__(self) -> None:
        if self.name is not None and not isinstance(self.name, str):
            raise GraphError(f"a tensor's name must be text, not {type(self.name).__name__}")
        if self.shape is not None:
            self.shape = checked_shape(self.shape)
        if self.dtype is not None:
            self.dtype = DataType(self.dtype)

    def __str__(self) -> str:
        dtype = self.dtype.short if self.dtype else "?"
        return f"{self.name or '(unnamed)'}: {dtype}{shape_text(self.shape)}"

    def __add__(self, other: Tensor) -> Tensor:
        return self._elewise("ELEWISE_ADD", other)

    def __sub__(self, other: Tensor) -> Tensor:
        return self._elewise("ELEWISE_SUB", other)

    def __gt__(self, other: Tensor) -> Tensor:
        return self._elewise("ELEWISE_GREATER", other)

    def __lt__(self, other: Tensor) -> Tensor:
        return self._elewise("ELEWISE_LESS", other)

    def __mul__(self, other: Tensor | float) -> Tensor:
        if isinstance(other, Tensor):
            return self._elewise("ELEWISE_MUL", other)
        return self._scaled(_number(other, "*"))

    __rmul__ = __mul__

    def __truediv__(self, other: Tensor | float) -> Tensor:
        if isinstance(other, Tensor):
            return self._elewise("ELEWISE_REALDIV", other)
        divisor = _number(other, "/")
        if divisor == 0:
            raise GraphError("a tensor cannot be divided by zero")
        return self._scaled(1.0 / divisor)

    def __invert__(self) -> Tensor:
        return _record(Elewise(ElewiseType.LOGICAL_NOT), self)

    def __getitem__(self, item: slice | tuple[slice, ...]) -> Tensor:
        """Records a slice: `t[a:b, c:]` takes one slice of step 1 for each dimension, missing ones take everything."""
        slices = item if isinstance(item, tuple) else (item,)
        return _record(Slice.from_slices(slices, self.shape), self)

    def to(self, dtype: DataType) -> Tensor:
        """Records a conversion to another element type."""
        return _record(Cast(DataType(dtype)), self)

    def permute(self, dims: Sequence[int]) -> Tensor:
        """Records a permutation of the dimensions, as `torch.Tensor.permute`."""
        return _record(Transpose(as_tuple(dims)), self)

    def repeat(self, repeats: Sequence[int]) -> Tensor:
        """Records a tensor tiled `repeats[i]` times along dimension `i`, as `torch.Tensor.repeat`."""
        return _record(Repeat(as_tuple(repeats)), self)

    def reshape(self, reshape_func: ShapeFunction | Sequence[DimLike]) -> Tensor:
        """Records a view of another shape, given as sizes or as a function from the old shape to the new one."""
        return _record(Reshape(reshape_func if callable(reshape_func) else as_tuple(reshape_func)), self)

    def write_inplace(self, target: Tensor) -> None:
        """Records a copy of this value into the memory of `target`; later reads of `target` see it."""
        _recorder()(Assign(), (self, target))

    def _elewise(self, kind: str, other: Tensor) -> Tensor:
        if not isinstance(other, Tensor):
            raise GraphError(
                f"{kind} takes two tensors, not a tensor and {type(other).__name__}",
                hint="Products and quotients take numbers; cos(x * 0.0) are ones. Give other constants as inputs.",
            )
        return _record(Elewise(ElewiseType(kind)), self, other)

    def _scaled(self, factor: float) -> Tensor:
        return _record(Elewise(ElewiseType.MULS, factor), self)


def _number(value: object, operator: str) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise GraphError(f"tensor {operator} {type(value).__name__}: the right side must be a tensor or a number")


def _record(op: Op, *inputs: Tensor) -> Tensor:
    return _recorder()(op, inputs)[0]
