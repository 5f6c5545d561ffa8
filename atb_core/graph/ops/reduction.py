# SPDX-License-Identifier: Apache-2.0
"""Ops over whole rows: softmax, reductions, sorting."""

from __future__ import annotations

from dataclasses import dataclass

from atb_core.graph.dim import Dim, Shape
from atb_core.graph.dtype import AttributeEnum
from atb_core.graph.op import Op, RealTensor, normal_axis, require


@dataclass(frozen=True)
class Softmax(Op):
    """Computes `exp(x - max) / sum` over `axes`, which must be consecutive."""

    axes: tuple[int, ...] = (-1,)

    input_dtypes = ("float",)

    def resolve(self, *shapes: Shape) -> Op:
        return Softmax(tuple(normal_axis(axis, len(shapes[0])) for axis in self.axes))

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        first = self.axes[0] if self.axes else 0
        ordered = list(self.axes) == list(range(first, first + len(self.axes)))
        require(bool(self.axes) and ordered, f"axes {list(self.axes)} are not consecutive")
        return (shapes[0],)

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        x = inputs[0].float()
        powers = (x - x.amax(self.axes, keepdim=True)).exp()
        return ((powers / powers.sum(self.axes, keepdim=True)).to(inputs[0].dtype),)


class ReduceType(AttributeEnum):
    """Reductions, with ATB's names as values."""

    MAX = "REDUCE_MAX"
    MIN = "REDUCE_MIN"
    SUM = "REDUCE_SUM"


@dataclass(frozen=True)
class Reduce(Op):
    """Computes the maximum, minimum or sum over the axes in `axis` and removes them."""

    reduce_type: ReduceType
    axis: tuple[int, ...]

    enums = (("reduce_type", ReduceType),)
    input_dtypes = ("float|int32|int64",)

    def resolve(self, *shapes: Shape) -> Op:
        axes = {normal_axis(axis, len(shapes[0])) for axis in self.axis}
        return Reduce(self.reduce_type, tuple(sorted(axes)))

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        require(bool(self.axis), "axis names no dimension")
        return (tuple(size for i, size in enumerate(shapes[0]) if i not in self.axis),)

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        x = inputs[0].float() if inputs[0].is_floating_point() else inputs[0]
        if self.reduce_type is ReduceType.SUM:
            return (x.sum(self.axis).to(inputs[0].dtype),)
        return ((x.amax(self.axis) if self.reduce_type is ReduceType.MAX else x.amin(self.axis)).to(inputs[0].dtype),)


@dataclass(frozen=True)
class Sort(Op):
    """Sorts the last dimension in descending order and returns the `num[0]` largest values and their int32 indices.

    Among equal values the lowest index comes first.
    """

    num: tuple[int, ...]

    output_dtypes = ("x", "int32")
    num_outputs = 2

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        (x,) = shapes
        require(len(self.num) == 1 and self.num[0] > 0, f"num must hold one positive count, not {list(self.num)}")
        require(isinstance(x[-1], Dim) or self.num[0] <= x[-1], f"{self.num[0]} of only {x[-1]} elements")
        return ((*x[:-1], self.num[0]),) * 2

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        values, indices = inputs[0].sort(dim=-1, descending=True, stable=True)
        count = self.num[0]
        return values[..., :count].contiguous(), indices[..., :count].int().contiguous()


@dataclass(frozen=True)
class Argsort(Op):
    """Returns the int32 indices that sort the last dimension in ascending order; equal values keep their order."""

    output_dtypes = ("int32",)
    backends = Op.backends - {"atb"}

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        return (shapes[0],)

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        return (inputs[0].argsort(dim=-1, stable=True).int(),)
