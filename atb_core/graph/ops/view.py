# SPDX-License-Identifier: Apache-2.0
"""Views, and writes into existing memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from atb_core.graph.dim import Dim, DimLike, Shape, checked_shape, shape_text
from atb_core.graph.op import Op, RealTensor, require


@dataclass(frozen=True)
class Reshape(Op):
    """Views x under another shape, given as sizes (one of them may be -1) or as a function of the old shape."""

    shape: Shape | Callable[[list[DimLike]], Sequence[DimLike]]

    is_view = True

    def check_attributes(self) -> None:
        if not callable(self.shape):
            sizes = [size for size in self.shape if size != -1] if isinstance(self.shape, Sequence) else self.shape
            checked_shape(sizes)

    def resolve(self, *shapes: Shape) -> Op:
        (x,) = shapes
        wanted = tuple(self.shape(list(x)) if callable(self.shape) else self.shape)
        if wanted.count(-1) == 1:
            missing = _quotient(prod(x), prod(size for size in wanted if size != -1))
            wanted = tuple(missing if size == -1 else size for size in wanted)
        return Reshape(wanted)

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        assert not callable(self.shape), "resolve() runs before infer_shapes()"
        same = prod(self.shape) == prod(shapes[0])
        require(same, f"{shape_text(shapes[0])} cannot be viewed as {shape_text(self.shape)}")
        return (self.shape,)

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        op = self.resolve(tuple(inputs[0].shape))
        assert isinstance(op, Reshape) and not callable(op.shape)
        return (inputs[0].view([int(str(size)) for size in op.shape]),)


def _quotient(whole: DimLike, part: DimLike) -> DimLike:
    """Returns the size for -1, or -1 if there is none; the shape check then reports it."""
    try:
        if isinstance(whole, Dim):
            return whole // part
        return whole // part if isinstance(part, int) and whole % part == 0 else -1
    except (ValueError, ZeroDivisionError):
        return -1


@dataclass(frozen=True)
class Assign(Op):
    """Copies `value` into the memory of `target`, which is written in place; the op has no outputs."""

    input_names = ("value", "target")
    input_dtypes = ("any", "value")
    backends = Op.backends - {"atb"}
    writes = (1,)
    num_outputs = 0

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        value, target = shapes
        require(value == target, f"{shape_text(value)} does not fit into {shape_text(target)}")
        return ()

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        inputs[1].copy_(inputs[0])
        return ()
