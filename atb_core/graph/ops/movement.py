# SPDX-License-Identifier: Apache-2.0
"""Ops that move or convert elements without arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from atb_core.errors import GraphError, ShapeError
from atb_core.graph.dim import Dim, Shape, shape_text
from atb_core.graph.dtype import DataType
from atb_core.graph.op import AttributeVariable, Op, RealTensor, normal_axis, require


@dataclass(frozen=True)
class Gather(Op):
    """Gathers entries of x by index along `axis`.

    x, indices (int32 or int64) -> `x[:axis] + indices[batch_dims:] + x[axis+1:]`. An index that is negative or beyond
    the axis is an error when the network runs.
    """

    axis: int = 0
    batch_dims: int = 0

    input_names = ("x", "indices")
    input_dtypes = ("any", "int32|int64")

    @property
    def row_operands(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("x",) if self.axis == 0 else ()

    def resolve(self, *shapes: Shape) -> Op:
        return replace(self, axis=normal_axis(self.axis, len(shapes[0])))

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        x, indices = shapes
        batch = self.batch_dims
        require(0 <= batch <= min(self.axis, len(indices)), f"batch_dims {batch} is larger than axis or indices")
        require(x[:batch] == indices[:batch], f"batch of {shape_text(x)} and of {shape_text(indices)} differ")
        return (x[: self.axis] + indices[batch:] + x[self.axis + 1 :],)

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        import torch

        x, indices = inputs[0], inputs[1].long()
        axis, size = self.axis % x.dim(), x.shape[self.axis]
        if indices.numel() and not (int(indices.min()) >= 0 and int(indices.max()) < size):
            raise IndexError(f"an index of Gather is outside of 0..{size - 1}")
        if self.batch_dims == 0:
            taken = x.index_select(axis, indices.reshape(-1))
            return (taken.reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :]),)
        inner = replace(self, axis=axis - 1, batch_dims=self.batch_dims - 1)
        return (torch.stack([inner.reference(a, i)[0] for a, i in zip(x, indices, strict=True)]),)


@dataclass(frozen=True)
class Split(Op):
    """Splits x along `split_dim` into `split_num` equal parts, or into parts of `split_sizes`."""

    split_dim: int = 0
    split_num: int = 2
    split_sizes: tuple[int, ...] = ()

    @property
    def num_outputs(self) -> int:
        return (
            self.split_num
            if isinstance(self.split_sizes, AttributeVariable)
            else len(self.split_sizes) or self.split_num
        )

    def resolve(self, *shapes: Shape) -> Op:
        (x,) = shapes
        dim = normal_axis(self.split_dim, len(x), "split_dim")
        size = x[dim]
        if self.split_sizes:
            return Split(dim, len(self.split_sizes), self.split_sizes)
        if isinstance(size, Dim):
            raise ShapeError(f"the symbolic size {size} cannot be split: give the sizes of the parts")
        require(self.split_num > 0 and size % self.split_num == 0, f"{size} does not split into {self.split_num}")
        return Split(dim, self.split_num, (size // self.split_num,) * self.split_num)

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        (x,) = shapes
        total = sum(self.split_sizes)
        require(x[self.split_dim] == total, f"sizes {list(self.split_sizes)} do not add up to {x[self.split_dim]}")
        return tuple(x[: self.split_dim] + (size,) + x[self.split_dim + 1 :] for size in self.split_sizes)

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        sizes = list(self.split_sizes) or [inputs[0].shape[self.split_dim] // self.split_num] * self.split_num
        return tuple(part.contiguous() for part in inputs[0].split_with_sizes(sizes, dim=self.split_dim))


@dataclass(frozen=True)
class Concat(Op):
    """Concatenates two tensors along `concat_dim`."""

    concat_dim: int = 0

    input_names = ("a", "b")
    input_dtypes = ("any", "a")

    def resolve(self, *shapes: Shape) -> Op:
        return Concat(normal_axis(self.concat_dim, len(shapes[0]), "concat_dim"))

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        a, b = shapes
        at = self.concat_dim
        fits = len(a) == len(b) and a[:at] == b[:at] and a[at + 1 :] == b[at + 1 :]
        require(fits, f"{shape_text(a)} and {shape_text(b)} do not join along dimension {at}")
        return (a[:at] + (a[at] + b[at],) + a[at + 1 :],)

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        import torch

        return (torch.cat(inputs, dim=self.concat_dim),)


@dataclass(frozen=True)
class Slice(Op):
    """Copies a box of x: `offsets[i]` (negative: from the end) and `size[i]` (-1: to the end) for each dimension."""

    offsets: tuple[int, ...]
    size: tuple[int, ...]

    @classmethod
    def from_slices(cls, slices: Sequence[object], shape: Shape | None) -> Slice:
        """Returns the op for `tensor[slices]`.

        Raises:
            GraphError: an item is not a slice of step 1, or its bounds cannot be evaluated for this shape.
        """
        offsets, sizes = [], []
        for position, item in enumerate(slices):
            plain = isinstance(item, slice) and all(isinstance(end or 0, int) for end in (item.start, item.stop))
            if not isinstance(item, slice) or not plain or item.step not in (None, 1):
                raise GraphError(
                    f"index {item!r}: tensors take slices of step 1 only", hint="Use functional.gather for single rows."
                )
            start, stop = item.start or 0, item.stop
            if (start < 0 or (stop is not None and stop < 0)) and shape is not None and position < len(shape):
                extent = shape[position]
                if isinstance(extent, Dim):
                    raise GraphError(f"index {item!r} counts from the end of the symbolic size {extent}")
                start, stop, _ = item.indices(extent)
            if stop is not None and (start < 0) != (stop < 0):
                raise GraphError(f"index {item!r} mixes both ends of a dimension whose size is not known")
            offsets.append(start)
            sizes.append(-1 if stop is None else max(stop - start, 0))
        return cls(tuple(offsets), tuple(sizes))

    def resolve(self, *shapes: Shape) -> Op:
        (x,) = shapes
        require(len(self.offsets) <= len(x), f"{len(self.offsets)} slices for {shape_text(x)}")
        missing = len(x) - len(self.offsets)
        offsets, sizes = [*self.offsets, *[0] * missing], [*self.size, *[-1] * missing]
        for i, extent in enumerate(x):
            if isinstance(extent, Dim):
                require(offsets[i] >= 0, f"a slice counts from the end of the symbolic size {extent}")
                continue
            offsets[i] = min(offsets[i] + extent if offsets[i] < 0 else offsets[i], extent)
            limit = extent - offsets[i]
            sizes[i] = limit if sizes[i] == -1 else min(sizes[i], limit)
        return Slice(tuple(offsets), tuple(sizes))

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        (x,) = shapes
        dimensions = zip(x, self.offsets, self.size, strict=True)
        return (tuple(extent - offset if size == -1 else size for extent, offset, size in dimensions),)

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        op = self.resolve(tuple(inputs[0].shape))
        assert isinstance(op, Slice)
        box = tuple(slice(o, o + s) for o, s in zip(op.offsets, op.size, strict=True))
        return (inputs[0][box].contiguous(),)


@dataclass(frozen=True)
class Transpose(Op):
    """Permutes the dimensions of x into the order `perm`."""

    perm: tuple[int, ...]

    def resolve(self, *shapes: Shape) -> Op:
        return Transpose(tuple(normal_axis(axis, len(shapes[0]), "perm entry") for axis in self.perm))

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        (x,) = shapes
        require(sorted(self.perm) == list(range(len(x))), f"perm {list(self.perm)} does not permute {shape_text(x)}")
        return (tuple(x[axis] for axis in self.perm),)

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        return (inputs[0].permute(self.perm).contiguous(),)


@dataclass(frozen=True)
class Repeat(Op):
    """Tiles x `multiples[i]` times along dimension i; additional multiples add dimensions in front."""

    multiples: tuple[int, ...]

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        (x,) = shapes
        require(len(self.multiples) >= len(x), f"{len(self.multiples)} multiples for {shape_text(x)}")
        require(all(m > 0 for m in self.multiples), f"multiples {list(self.multiples)} must be positive")
        padded: Shape = (1,) * (len(self.multiples) - len(x)) + x
        return (tuple(m * size for m, size in zip(self.multiples, padded, strict=True)),)

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        return (inputs[0].repeat(self.multiples),)


@dataclass(frozen=True)
class Cast(Op):
    """Converts x to `dtype`: floats round to nearest even, conversion of floats to integers truncates."""

    dtype: DataType

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        return (shapes[0],)

    def infer_dtypes(self, *dtypes: DataType | None) -> tuple[DataType | None, ...]:
        return (self.dtype,)

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        from atb_core.graph.arrays import dtype_to_torch

        return (inputs[0].to(dtype_to_torch(self.dtype)),)
