# SPDX-License-Identifier: Apache-2.0
"""Matrix products."""

from __future__ import annotations

from dataclasses import dataclass

from atb_core.errors import ShapeError
from atb_core.graph.dim import Shape, shape_text
from atb_core.graph.dtype import DataType
from atb_core.graph.op import Op, RealTensor, require, same_size
from atb_core.graph.ops.activation import Activation, ActivationType


@dataclass(frozen=True)
class Linear(Op):
    """Computes `y = x W (+ bias)` with float32 accumulation.

    x `[..., k]` (`[k, m]` with `transpose_a`), weight `[n, k]` (`transpose_b`, torch's layout) or `[k, n]`, bias `[n]`
    -> `[..., n]` of x's dtype, or of `out_dtype`: float32 keeps the accumulated values unrounded.
    """

    transpose_a: bool = False
    transpose_b: bool = True
    has_bias: bool = False
    out_dtype: DataType | None = None

    input_names = ("x", "weight", "bias")
    input_dtypes = ("float", "x", "float")

    @property
    def row_operands(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("weight",) if self.transpose_b else ()

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        x, weight = shapes[0], shapes[1]
        require(len(x) >= 2, f"x must have at least two dimensions, not {shape_text(x)}")
        require(len(weight) == 2, f"weight must have two dimensions, not {shape_text(weight)}")
        require(not self.transpose_a or len(x) == 2, "transpose_a takes an x of two dimensions")
        rows = (x[1],) if self.transpose_a else x[:-1]
        k = x[0] if self.transpose_a else x[-1]
        n, weight_k = weight if self.transpose_b else weight[::-1]
        same_size(k, weight_k, f"x {shape_text(x)} and weight {shape_text(weight)} disagree over k")
        if self.has_bias:
            require(shapes[2] == (n,), f"bias must be {shape_text((n,))}, not {shape_text(shapes[2])}")
        return ((*rows, n),)

    def infer_dtypes(self, *dtypes: DataType | None) -> tuple[DataType | None, ...]:
        x, out = dtypes[0], self.out_dtype
        if out not in (None, DataType.FLOAT) and x not in (None, out):
            raise ShapeError(f"out_dtype must be float32 or {x.short} like x, not {out.short}")
        return (out or x,)

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        from atb_core.graph.arrays import dtype_to_torch

        x, weight = inputs[0].float(), inputs[1].float()
        y = (x.T if self.transpose_a else x) @ (weight.T if self.transpose_b else weight)
        if self.has_bias:
            y = y + inputs[2].float()
        return (y.to(dtype_to_torch(self.out_dtype) if self.out_dtype else inputs[0].dtype),)


@dataclass(frozen=True)
class LinearSwiglu(Op):
    """Computes a linear and then `silu(gate) * up` of the halves of its columns, which are rounded to x's dtype before.

    x `[..., k]`, weight `[2 h, k]`, bias `[2 h]` -> `[..., h]`. The pass `fuse_linear_swiglu` creates this op.
    """

    has_bias: bool = False

    input_names = ("x", "weight", "bias")
    row_operands = ("weight",)
    input_dtypes = ("float", "x", "float")
    backends = Op.backends - {"atb"}

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        return Activation(ActivationType.SWIGLU).infer_shapes(*Linear(has_bias=self.has_bias).infer_shapes(*shapes))

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        return Activation(ActivationType.SWIGLU).reference(*Linear(has_bias=self.has_bias).reference(*inputs))


@dataclass(frozen=True)
class BatchMatmul(Op):
    """Multiplies each matrix of a batch by one of its own, with float32 accumulation as in `Linear`.

    x `[b, m, k]`, weight `[b, k, n]` (`[b, n, k]` with `transpose_b`) -> `[b, m, n]` of x's dtype.
    """

    transpose_b: bool = False

    input_names = ("x", "weight")
    input_dtypes = ("float", "x")

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        x, weight = shapes
        for name, shape in zip(self.input_names, shapes, strict=True):
            require(len(shape) == 3, f"{name} must have three dimensions, not {shape_text(shape)}")
        n, k = weight[1:] if self.transpose_b else weight[:0:-1]
        both = f"x {shape_text(x)} and weight {shape_text(weight)} disagree over"
        same_size(x[0], weight[0], f"{both} the batch")
        same_size(x[2], k, f"{both} k")
        return ((x[0], x[1], n),)

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        x, weight = inputs[0].float(), inputs[1].float()
        return ((x @ (weight.mT if self.transpose_b else weight)).to(inputs[0].dtype),)


@dataclass(frozen=True)
class MergedLinear(Op):
    """Computes several linears of one input in one node.

    x `[..., k]`, weights `[n_i, k]`, biases `[n_i]` -> `[..., n_i]` each. Inputs are x, then `parts` weights, then
    `parts` biases if `has_bias`. The pass `merge_linears` creates this op; the weights are not copied.
    """

    parts: int
    has_bias: bool = False

    input_names = ("x", "weights", "biases")
    row_operands = ("weights",)
    input_dtypes = ("float", "x", "float")
    backends = Op.backends - {"atb"}

    @property
    def operands(self) -> tuple[str, ...]:
        return "x", *["weights"] * self.parts, *["biases"] * (self.parts if self.has_bias else 0)

    @property
    def num_outputs(self) -> int:
        return self.parts

    def unfused(self, *inputs: object) -> list[tuple[object, ...]]:
        """Returns the inputs of each of the separate linears."""
        x, weights, biases = inputs[0], inputs[1 : 1 + self.parts], inputs[1 + self.parts :]
        groups = zip(weights, biases, strict=True) if self.has_bias else ((w,) for w in weights)
        return [(x, *group) for group in groups]

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        linear = Linear(has_bias=self.has_bias)
        return tuple(linear.infer_shapes(*group)[0] for group in self.unfused(*shapes))  # type: ignore[arg-type]

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        linear = Linear(has_bias=self.has_bias)
        return tuple(linear.reference(*group)[0] for group in self.unfused(*inputs))  # type: ignore[arg-type]


@dataclass(frozen=True)
class SplitLinear(Op):
    """Computes a linear whose output columns are split: x `[..., k]`, weight `[sum(sizes), k]` -> `[..., size]` each.

    The pass `fuse_split_linear` creates this op from `Linear` and `Split`; the parts are written directly, without a
    copy.
    """

    sizes: tuple[int, ...]
    has_bias: bool = False

    input_names = ("x", "weight", "bias")
    row_operands = ("weight",)
    input_dtypes = ("float", "x", "float")
    backends = Op.backends - {"atb"}

    @property
    def num_outputs(self) -> int:
        return len(self.sizes)

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        (whole,) = Linear(has_bias=self.has_bias).infer_shapes(*shapes)
        same_size(whole[-1], sum(self.sizes), f"sizes {list(self.sizes)} and the weight's rows")
        return tuple((*whole[:-1], size) for size in self.sizes)

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        (whole,) = Linear(has_bias=self.has_bias).reference(*inputs)
        return tuple(part.contiguous() for part in whole.split_with_sizes(list(self.sizes), dim=-1))
