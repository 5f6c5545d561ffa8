# SPDX-License-Identifier: Apache-2.0
"""Low-rank products of adapters."""

from __future__ import annotations

from dataclasses import dataclass

from atb_core.graph.dim import Shape, shape_text
from atb_core.graph.op import Op, RealTensor, require, same_size


@dataclass(frozen=True)
class Lora(Op):
    """Adds to each row of a linear's result the low-rank product of the row's adapter (LoRA, arXiv:2106.09685).

    y `[T, N]` is the result of a linear of x `[T, k]` whose N columns are those of several matrices, `sizes`, one after
    another: its parts. There are S slots for adapters: a `[S, parts * R, k]` has R rows for each part, b `[S, R, N]`
    and bias `[S, N]` are as wide as y. slots int32 `[T]`, or `[1]` for all rows, has the slot of each row; the bits of
    a row with a negative one stay. Part p of a row in slot s becomes `y + (bias + (x a') b')`, where a' and b' are the
    first `ranks[s, first + p]` rows of the part; ranks is int32 `[S, M]`. At rank 0 the bits of the part stay.

    Sums are float32 and x a' is not rounded; the result has y's dtype. A slot or a rank out of range is an error when
    the network runs.
    """

    sizes: tuple[int, ...]
    first: int = 0

    input_names = ("y", "x", "a", "b", "bias", "slots", "ranks")
    input_dtypes = ("float", "y", "y", "y", "y", "int32", "int32")
    backends = Op.backends - {"atb"}

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        y, x, a, b, bias, slots, ranks = shapes
        for name, shape, count in (("y", y, 2), ("x", x, 2), ("a", a, 3), ("slots", slots, 1), ("ranks", ranks, 2)):
            require(len(shape) == count, f"{name} must have {count} dimensions, not {shape_text(shape)}")
        parts, columns = len(self.sizes), sum(self.sizes)
        require(parts > 0, "sizes is empty")
        same_size(y[1], columns, f"sizes {list(self.sizes)} and y {shape_text(y)}")
        same_size(y[0], x[0], f"y {shape_text(y)} and x {shape_text(x)} disagree over the number of rows")
        same_size(x[1], a[2], f"x {shape_text(x)} and a {shape_text(a)} disagree over k")
        require(len(b) == 3 and b[2] == y[1] and b[0] == a[0], f"b {shape_text(b)} does not fit y and a")
        same_size(a[1], b[1] * parts, f"a {shape_text(a)} and b {shape_text(b)} disagree over the rank")
        require(bias == (a[0], y[1]), f"bias must be {shape_text((a[0], y[1]))}, not {shape_text(bias)}")
        require(slots[0] in (1, x[0]), f"slots must be [1] or {shape_text((x[0],))}, not {shape_text(slots)}")
        same_size(ranks[0], a[0], f"ranks {shape_text(ranks)} and a {shape_text(a)} disagree over the slots")
        return (y,)

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        y, x, a, b, bias, slots, ranks = inputs
        out, widest = y.clone(), b.shape[1]
        chosen = slots.expand(len(x))
        if len(slots) and int(slots.max()) >= len(a):
            raise IndexError(f"slots has adapter {int(slots.max())} of {len(a)}")
        own = ranks[:, self.first : self.first + len(self.sizes)]
        if own.shape[1] != len(self.sizes) or bool(((own < 0) | (own > widest)).any()):
            raise IndexError(f"ranks {tuple(ranks.shape)} is out of range for {len(self.sizes)} parts of rank {widest}")
        for slot in sorted({slot for slot in chosen.tolist() if slot >= 0}):
            rows, end = chosen == slot, 0
            for part, size in enumerate(self.sizes):
                begin, end, rank = end, end + size, int(own[slot, part])
                if rank:
                    low = x[rows].float() @ a[slot, part * widest : part * widest + rank].float().T
                    added = bias[slot, begin:end].float() + low @ b[slot, :rank, begin:end].float()
                    out[rows, begin:end] = (y[rows, begin:end].float() + added).to(y.dtype)
        return (out,)
