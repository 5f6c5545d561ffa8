# SPDX-License-Identifier: Apache-2.0
"""Normalization of rows."""

from __future__ import annotations

from dataclasses import dataclass

from atb_core.graph.dim import Shape, shape_text
from atb_core.graph.op import Op, RealTensor, require


def _check_weight(x: Shape, weight: Shape) -> None:
    """Raises ShapeError unless the weight has the size of x's last dimension."""
    require(len(x) >= 1, "x must have at least one dimension")
    require(weight == x[-1:], f"weight must be {shape_text(x[-1:])}, not {shape_text(weight)}")


@dataclass(frozen=True)
class RmsNorm(Op):
    """Normalizes the last dimension: `y = x / sqrt(mean(x^2) + epsilon) * weight`.

    x `[..., h]`, weight `[h]` of x's dtype or float32 -> `[..., h]` of x's dtype.
    """

    epsilon: float = 1e-5

    input_names = ("x", "weight")
    input_dtypes = ("float", "x|float32")

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        _check_weight(*shapes)
        return (shapes[0],)

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        x = inputs[0].float()
        normalized = x * (x.square().mean(-1, keepdim=True) + self.epsilon).rsqrt()
        return ((normalized * inputs[1].float()).to(inputs[0].dtype),)


@dataclass(frozen=True)
class AddRmsNorm(Op):
    """Adds a residual and normalizes the sum.

    a and b `[..., h]`, weight `[h]` -> `norm(a + b)`, rstd float32 `[..., 1]`, `a + b`. The sum is rounded to its dtype
    before it is normalized, so the bits are those of an addition followed by `RmsNorm`.
    """

    epsilon: float = 1e-5

    input_names = ("a", "b", "weight")
    input_dtypes = ("float", "a", "a|float32")
    output_dtypes = ("a", "float32", "a")
    num_outputs = 3

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        a, b, weight = shapes
        require(a == b, f"a {shape_text(a)} and b {shape_text(b)} differ")
        _check_weight(a, weight)
        return a, (*a[:-1], 1), a

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        a, b, weight = inputs
        total = (a.float() + b.float()).to(a.dtype)
        rstd = (total.float().square().mean(-1, keepdim=True) + self.epsilon).rsqrt()
        (normalized,) = RmsNorm(self.epsilon).reference(total, weight)
        return normalized, rstd, total


@dataclass(frozen=True)
class LayerNorm(Op):
    """Normalizes the last dimension: `y = (x - mean(x)) / sqrt(var(x) + epsilon) * weight + bias`.

    x `[..., h]`, weight and bias `[h]`, both of x's dtype or both float32 -> `[..., h]` of x's dtype. `var` is the mean
    of the squared distances from the mean.
    """

    epsilon: float = 1e-5

    input_names = ("x", "weight", "bias")
    input_dtypes = ("float", "x|float32", "weight")

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        x, weight, bias = shapes
        _check_weight(x, weight)
        require(bias == weight, f"bias must be {shape_text(weight)} like weight, not {shape_text(bias)}")
        return (x,)

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        x, weight, bias = (value.float() for value in inputs)
        centered = x - x.mean(-1, keepdim=True)
        factor = (centered.square().mean(-1, keepdim=True) + self.epsilon).rsqrt()
        return ((centered * factor * weight + bias).to(inputs[0].dtype),)
