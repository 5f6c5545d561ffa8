# SPDX-License-Identifier: Apache-2.0
"""Elementwise arithmetic, comparison and logic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atb_core.graph.dim import Shape
from atb_core.graph.dtype import DataType
from atb_core.graph.op import AttributeEnum, Op, Sample, broadcast, is_variable
from atb_core.graph.samples import randn

if TYPE_CHECKING:
    import torch


class ElewiseType(AttributeEnum):
    """Elementwise operations, with ATB's names as values."""

    ADD = "ELEWISE_ADD"
    SUB = "ELEWISE_SUB"
    MUL = "ELEWISE_MUL"
    REALDIV = "ELEWISE_REALDIV"
    MULS = "ELEWISE_MULS"
    COS = "ELEWISE_COS"
    SIN = "ELEWISE_SIN"
    NEG = "ELEWISE_NEG"
    TANH = "ELEWISE_TANH"
    LOGICAL_NOT = "ELEWISE_LOGICAL_NOT"
    LOGICAL_AND = "ELEWISE_LOGICAL_AND"
    LOGICAL_OR = "ELEWISE_LOGICAL_OR"
    LESS = "ELEWISE_LESS"
    GREATER = "ELEWISE_GREATER"
    EQUAL = "ELEWISE_EQUAL"


UNARY = frozenset(
    {
        ElewiseType.MULS,
        ElewiseType.COS,
        ElewiseType.SIN,
        ElewiseType.NEG,
        ElewiseType.TANH,
        ElewiseType.LOGICAL_NOT,
    }
)
COMPARISONS = frozenset({ElewiseType.LESS, ElewiseType.GREATER, ElewiseType.EQUAL})
LOGICAL = frozenset({ElewiseType.LOGICAL_NOT, ElewiseType.LOGICAL_AND, ElewiseType.LOGICAL_OR})


@dataclass(frozen=True)
class Elewise(Op):
    """Computes elementwise arithmetic, comparison or logic on one tensor, or on two that broadcast as in numpy.

    Comparisons and logic return int8 (0 or 1). Logic takes int8 and treats every non-zero value as true. `var_attr` is
    the factor of MULS.
    """

    elewise_type: ElewiseType
    var_attr: float = 0.0

    input_names = ("a", "b")
    backends = Op.backends | {"atb"}

    def __post_init__(self) -> None:
        if not is_variable(self.elewise_type):
            object.__setattr__(self, "elewise_type", ElewiseType(self.elewise_type))

    @property
    def num_inputs(self) -> int:
        """Returns 1 for unary operations, else 2."""
        return 1 if self.elewise_type in UNARY else 2

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        """Returns the broadcast shape of the inputs."""
        return (shapes[0] if len(shapes) == 1 else broadcast(*shapes),)

    def infer_dtypes(self, *dtypes: DataType | None) -> tuple[DataType | None, ...]:
        """Returns int8 for comparisons and logic, else the first input's dtype."""
        return (DataType.INT8 if self.elewise_type in COMPARISONS | LOGICAL else dtypes[0],)

    def reference(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Computes floating-point inputs in float32 and rounds the result to the output's dtype."""
        import torch

        kind, dtype = self.elewise_type, inputs[0].dtype
        values = [x.float() if x.is_floating_point() else x for x in inputs]
        if kind is ElewiseType.MULS:
            return ((values[0] * self.var_attr).to(dtype),)
        result = _function(kind)(*values)
        return (result.to(torch.int8 if kind in COMPARISONS | LOGICAL else dtype),)

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        """Yields a sample of each operation and one that broadcasts both inputs."""
        import torch

        for kind in ElewiseType:
            a, b = randn(3, 50), randn(50) + 3
            if kind in LOGICAL:
                a, b = (a > 0).to(torch.int8), (b > 3).to(torch.int8)
            if kind is ElewiseType.EQUAL:
                b = a.clone()
                b[0, ::3] += 1
            factor = 0.37 if kind is ElewiseType.MULS else 0.0
            yield Sample(cls(kind, factor), (a,) if kind in UNARY else (a, b), kind.name)
        yield Sample(cls(ElewiseType.ADD), (randn(4, 1, 6), randn(5, 1)), "broadcast both ways")


def _function(kind: ElewiseType) -> Callable[..., torch.Tensor]:
    """Returns torch's function for the operation."""
    import torch

    functions: dict[ElewiseType, Callable[..., torch.Tensor]] = {
        ElewiseType.ADD: torch.add,
        ElewiseType.SUB: torch.sub,
        ElewiseType.MUL: torch.mul,
        ElewiseType.REALDIV: torch.div,
        ElewiseType.COS: torch.cos,
        ElewiseType.SIN: torch.sin,
        ElewiseType.NEG: torch.neg,
        ElewiseType.TANH: torch.tanh,
        ElewiseType.LOGICAL_NOT: torch.logical_not,
        ElewiseType.LOGICAL_AND: torch.logical_and,
        ElewiseType.LOGICAL_OR: torch.logical_or,
        ElewiseType.LESS: torch.lt,
        ElewiseType.GREATER: torch.gt,
        ElewiseType.EQUAL: torch.eq,
    }
    return functions[kind]
