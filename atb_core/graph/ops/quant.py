# SPDX-License-Identifier: Apache-2.0
"""Activations as integers of 8 bits, and their products with matrices of such integers."""

from __future__ import annotations

from dataclasses import dataclass

from atb_core.graph.dim import Shape, shape_text
from atb_core.graph.dtype import DataType
from atb_core.graph.op import Op, RealTensor, require, same_size
from atb_core.graph.ops.activation import Activation, ActivationType

# The largest k for which a sum of products fits into 32 bits.
_MAX_K = 131071
# Rows whose largest magnitude is less become zeros.
_LEAST = 2.0**-100


@dataclass(frozen=True)
class QuantPerChannel(Op):
    """Rounds to integers of 8 bits: `clamp(round(x / scale + offset), -128, 127)`, to nearest even; NaN becomes 0.

    x `[..., h]`, scale `[1]` or `[h]` of x's dtype or float32, offset int8 like scale -> int8 `[..., h]`.
    """

    input_names = ("x", "scale", "offset")
    input_dtypes = ("float", "x|float32", "int8")
    output_dtypes = ("int8",)

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        x, scale, offset = shapes
        require(len(x) >= 1 and scale in ((1,), x[-1:]), f"scale must be [1] or of x's width, not {shape_text(scale)}")
        require(offset == scale, f"offset must be {shape_text(scale)} like scale, not {shape_text(offset)}")
        return (x,)

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        x, scale, offset = (value.float() for value in inputs)
        return ((x / scale + offset).nan_to_num(0).round().clamp(-128, 127).char(),)


@dataclass(frozen=True)
class DynamicQuant(Op):
    """Rounds each row to integers of 8 bits with a scale of its own: the largest magnitude / 127.

    x `[..., h]` -> `round(x / scale)` int8 `[..., h]`, scale float32 `[...]`. Rows whose largest magnitude is less than
    2**-100 have the scale 0. A row with NaN has the scale NaN, and with infinity an infinite one: products are NaN.
    """

    input_dtypes = ("float",)
    output_dtypes = ("int8", "float32")
    num_outputs = 2

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        require(len(shapes[0]) >= 1, "x must have at least one dimension")
        return shapes[0], shapes[0][:-1]

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        x = inputs[0].float()
        largest = x.abs().amax(-1, keepdim=True)
        scale = (largest / 127).where(~(largest < _LEAST), 0)
        return (x / scale).nan_to_num(0, 0, 0).round().char(), scale.squeeze(-1)


@dataclass(frozen=True)
class QuantLinear(Op):
    """Multiplies integers of 8 bits: `y = (x W + bias) scale token_scale`, with an exact sum.

    x int8 `[..., k]`, weight int8 `[n, k]` (`transpose_b`) or `[k, n]`, scale `[n]`, token_scale float32 `[...]`, bias
    int32 `[n]` -> `[..., n]` of `out_dtype`. The scale is float32, or int64 with the bits of a float32 in its low half,
    as ATB wants it for float16. The sum with the bias is an int32 (modulo 2**32); with `out_dtype` int32 it is the
    result, and there are no scales.
    """

    out_dtype: DataType
    transpose_b: bool = True
    has_token_scale: bool = False
    has_bias: bool = False

    input_names = ("x", "weight", "scale", "token_scale", "bias")
    input_dtypes = ("int8", "int8", "float32|int64", "float32", "int32")

    @property
    def operands(self) -> tuple[str, ...]:
        has = (True, True, self.out_dtype is not DataType.INT32, self.has_token_scale, self.has_bias)
        return tuple(name for name, there in zip(self.input_names, has, strict=True) if there)

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        given = dict(zip(self.operands, shapes, strict=True))
        x, weight = shapes[:2]
        require(len(x) >= 1 and len(weight) == 2, f"x {shape_text(x)} and weight {shape_text(weight)} do not multiply")
        n, k = weight if self.transpose_b else weight[::-1]
        same_size(x[-1], k, f"x {shape_text(x)} and weight {shape_text(weight)} disagree over k")
        require(not isinstance(k, int) or k <= _MAX_K, f"k is {k}, and sums of 32 bits hold {_MAX_K} products")
        for name, wanted in (("scale", (n,)), ("token_scale", x[:-1]), ("bias", (n,))):
            found = given.get(name, wanted)
            require(found == wanted, f"{name} must be {shape_text(wanted)}, not {shape_text(found)}")
        return ((*x[:-1], n),)

    def infer_dtypes(self, *dtypes: DataType | None) -> tuple[DataType | None, ...]:
        fits = self.out_dtype.is_float or (self.out_dtype is DataType.INT32 and not self.has_token_scale)
        require(fits, f"out_dtype is {self.out_dtype.short}, not a float, or int32 without token_scale")
        return (self.out_dtype,)

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        from atb_core.graph.arrays import dtype_to_torch

        given = dict(zip(self.operands, inputs, strict=True))
        # Sums are less than 2**53, so float64 is exact.
        weight = given["weight"].double()
        y = (given["x"].double() @ (weight.T if self.transpose_b else weight)).int()
        y = y + given["bias"] if self.has_bias else y
        if self.out_dtype is DataType.INT32:
            return (y,)
        scale = given["scale"]
        y = y.float() * (scale if scale.is_floating_point() else scale.int().view(dtype_to_torch(DataType.FLOAT)))
        y = y * given["token_scale"].unsqueeze(-1) if self.has_token_scale else y
        return (y.to(dtype_to_torch(self.out_dtype)),)


@dataclass(frozen=True)
class QuantLinearSwiglu(QuantLinear):
    """Computes a `QuantLinear` with floats as result, rounded to them, and SWIGLU of it: `[..., 2 h]` -> `[..., h]`."""

    backends = Op.backends - {"atb"}

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        require(self.out_dtype.is_float, f"SWIGLU takes floats, and out_dtype is {self.out_dtype.short}")
        return Activation(ActivationType.SWIGLU).infer_shapes(*super().infer_shapes(*shapes))

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        return Activation(ActivationType.SWIGLU).reference(*super().reference(*inputs))
