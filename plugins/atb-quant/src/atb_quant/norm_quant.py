# SPDX-License-Identifier: Apache-2.0
"""The norm of a row with the rounding of its result to integers, in one node, as ATB has it for float16."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from atb_core.errors import ShapeError
from atb_core.graph import DataType, Op, Shape, Tensor, record
from atb_core.graph.ops import AddRmsNorm, QuantPerChannel, RmsNorm
from atb_core.graph.passes import Fusion, Match, Pass

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class RmsNormQuant(Op, namespace="atb_quant"):
    """Normalizes rows, adds a bias and rounds to integers of 8 bits: `clamp(round((norm + bias) / scale + offset))`.

    x `[..., h]`, with `has_residual` residual like x, which is added first, weight and bias `[h]`, scale `[1]`, all of
    x's dtype, offset int8 `[1]` -> int8 `[..., h]`, and with a residual the sum, rounded to x's dtype. Between the sum
    and the integers nothing is rounded.
    """

    epsilon: float = 1e-5
    has_residual: bool = False

    input_names = ("x", "residual", "weight", "bias", "scale", "offset")
    input_dtypes = ("float", "x", "x", "x", "x", "int8")

    @property
    def operands(self) -> tuple[str, ...]:
        return tuple(name for name in self.input_names if name != "residual" or self.has_residual)

    @property
    def num_outputs(self) -> int:
        return 2 if self.has_residual else 1

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        x = shapes[0]
        wanted = ((x,) if self.has_residual else ()) + (x[-1:], x[-1:], (1,), (1,))
        if not x or shapes[1:] != wanted:
            raise ShapeError(f"the inputs behind x have the shapes {shapes[1:]}, not {wanted}")
        return (x,) * self.num_outputs

    def infer_dtypes(self, *dtypes: DataType | None) -> tuple[DataType | None, ...]:
        return (DataType.INT8, dtypes[0])[: self.num_outputs]

    def reference(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        total = (inputs[0].float() + inputs[1].float()).to(inputs[0].dtype) if self.has_residual else inputs[0]
        weight, bias, scale, offset = (value.float() for value in inputs[-4:])
        (normalized,) = RmsNorm(self.epsilon).reference(total.float(), weight)
        integers = ((normalized + bias) / scale + offset).nan_to_num(0).round().clamp(-128, 127).char()
        return (integers, total)[: self.num_outputs]


# The core's table of ATB's operations has a rule for it.
RmsNormQuant.backends = frozenset({"reference", "atb"})


def _norm(x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, offset: Tensor, *, eps: float) -> Tensor:
    normalized = record(RmsNorm(eps), (x, weight))[0] + bias
    return record(QuantPerChannel(), (normalized, scale, offset))[0]


def _fused_norm(x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, offset: Tensor, *, eps: float) -> Tensor:
    return record(RmsNormQuant(eps), (x, weight, bias, scale, offset))[0]


def _add_norm(
    x: Tensor, other: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, offset: Tensor, *, eps: float
) -> tuple[Tensor, Tensor]:
    normalized, _, total = record(AddRmsNorm(eps), (x, other, weight))
    return record(QuantPerChannel(), (normalized + bias, scale, offset))[0], total


def _fused_add_norm(
    x: Tensor, other: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, offset: Tensor, *, eps: float
) -> tuple[Tensor, Tensor]:
    integers, total = record(RmsNormQuant(eps, True), (x, other, weight, bias, scale, offset))
    return integers, total


def _fits(match: Match) -> bool:
    """Returns true for float16, a bias of the row's width and one scale."""
    given = match.tensors
    half = all(given[name].dtype is DataType.FLOAT16 for name in ("x", "weight", "bias", "scale"))
    return half and given["bias"].shape == given["weight"].shape is not None and given["scale"].shape == (1,)


PASSES = [
    Pass("AddNormWithBiasQuantPerTensor", Fusion(_add_norm, _fused_add_norm, _fits), RmsNormQuant.op_name()),
    Pass("NormWithBiasQuantPerTensor", Fusion(_norm, _fused_norm, _fits), RmsNormQuant.op_name()),
]
