# SPDX-License-Identifier: Apache-2.0
"""Activation functions."""

from __future__ import annotations

from dataclasses import dataclass

from atb_core.graph.dim import Dim, Shape
from atb_core.graph.dtype import AttributeEnum
from atb_core.graph.op import Op, RealTensor, require


class ActivationType(AttributeEnum):
    """Activation functions, with ATB's names as values."""

    RELU = "ACTIVATION_RELU"
    GELU = "ACTIVATION_GELU"
    FAST_GELU = "ACTIVATION_FAST_GELU"
    SWISH = "ACTIVATION_SWISH"
    LOG = "ACTIVATION_LOG"
    SWIGLU = "ACTIVATION_SWIGLU_FORWARD"
    SIGMOID = "ACTIVATION_SIGMOID"


class GeluMode(AttributeEnum):
    """Variants of GELU: the approximation by tanh, or the exact form with erf."""

    TANH = "TANH_MODE"
    NONE = "NONE_MODE"


@dataclass(frozen=True)
class Activation(Op):
    """Applies an activation function to every element of x.

    SWIGLU halves the last dimension: x `[..., 2h]` holds `[gate, up]`, the output `[..., h]` is `silu(gate) * up`.
    `scale` is used by SWISH only: `x * sigmoid(scale * x)`.
    """

    activation_type: ActivationType
    scale: float = 1.0
    dim: int = -1
    gelu_mode: GeluMode = GeluMode.TANH

    enums = (("activation_type", ActivationType), ("gelu_mode", GeluMode))
    input_dtypes = ("float",)

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        (x,) = shapes
        require(self.dim in (-1, len(x) - 1), f"dim must be the last one, not {self.dim}")
        if self.activation_type is not ActivationType.SWIGLU:
            return (x,)
        require(isinstance(x[-1], Dim) or x[-1] % 2 == 0, f"SWIGLU halves the last dimension, which is {x[-1]}")
        return ((*x[:-1], x[-1] // 2),)

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        return (self._apply(inputs[0].float()).to(inputs[0].dtype),)

    def _apply(self, x: RealTensor) -> RealTensor:
        from torch.nn import functional

        kind = self.activation_type
        if kind is ActivationType.SWIGLU:
            gate, up = x.chunk(2, dim=-1)
            return gate * gate.sigmoid() * up
        if kind is ActivationType.SWISH:
            return x * (self.scale * x).sigmoid()
        if kind is ActivationType.GELU:
            return functional.gelu(x, approximate="tanh" if self.gelu_mode is GeluMode.TANH else "none")
        if kind is ActivationType.FAST_GELU:
            return x * (0.851 * (x - x.abs())).exp() / (1 + (-1.702 * x.abs()).exp())
        if kind is ActivationType.LOG:
            return x.log()
        return x.relu() if kind is ActivationType.RELU else x.sigmoid()
