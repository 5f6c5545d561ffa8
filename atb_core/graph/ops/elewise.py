# SPDX-License-Identifier: Apache-2.0
"""Elementwise arithmetic, comparison and logic."""

from __future__ import annotations

from dataclasses import dataclass

from atb_core.graph.dim import Shape
from atb_core.graph.dtype import AttributeEnum, DataType
from atb_core.graph.op import Op, RealTensor, broadcast, require


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


#: Methods of `torch.Tensor` that compute an operation under another name.
_METHODS = {"REALDIV": "div", "MULS": "mul", "LESS": "lt", "GREATER": "gt", "EQUAL": "eq"}
UNARY = frozenset(ElewiseType(f"ELEWISE_{name}") for name in ("MULS", "COS", "SIN", "NEG", "TANH", "LOGICAL_NOT"))
COMPARISONS = frozenset({ElewiseType.LESS, ElewiseType.GREATER, ElewiseType.EQUAL})
LOGICAL = frozenset({ElewiseType.LOGICAL_NOT, ElewiseType.LOGICAL_AND, ElewiseType.LOGICAL_OR})

# The operations on floating-point types, and on int32 and int64. Logic takes int8 and bool.
_FLOATS = frozenset(ElewiseType) - LOGICAL
_INTEGERS = COMPARISONS | {ElewiseType.ADD, ElewiseType.SUB, ElewiseType.MUL, ElewiseType.NEG}


@dataclass(frozen=True)
class Elewise(Op):
    """Computes elementwise arithmetic, comparison or logic on one tensor, or on two that broadcast as in numpy.

    Comparisons and logic return int8 (0 or 1). Logic takes int8 and treats every non-zero value as true. `var_attr` is
    the factor of MULS.
    """

    elewise_type: ElewiseType
    var_attr: float = 0.0

    enums = (("elewise_type", ElewiseType),)
    input_names = ("a", "b")
    input_dtypes = ("any", "a")

    @property
    def operands(self) -> tuple[str, ...]:
        return ("a",) if self.elewise_type in UNARY else ("a", "b")

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        return (shapes[0] if len(shapes) == 1 else broadcast(*shapes),)

    def check_dtypes(self, *dtypes: DataType | None) -> None:
        super().check_dtypes(*dtypes)
        a, kind = dtypes[0], self.elewise_type
        if a is None:
            return
        truth = a in (DataType.INT8, DataType.BOOL)
        taken = LOGICAL | {ElewiseType.EQUAL} if truth else _FLOATS if a.is_float else _INTEGERS
        require(kind in taken, f"{kind} does not take {a.short}")

    def infer_dtypes(self, *dtypes: DataType | None) -> tuple[DataType | None, ...]:
        return (DataType.INT8 if self.elewise_type in COMPARISONS | LOGICAL else dtypes[0],)

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        kind = self.elewise_type
        first, *others = (x.float() if x.is_floating_point() else x for x in inputs)
        operands = [self.var_attr] if kind is ElewiseType.MULS else others
        result: RealTensor = getattr(first, _METHODS.get(kind.name, kind.name.lower()))(*operands)
        return (result.char() if kind in COMPARISONS | LOGICAL else result.to(inputs[0].dtype),)
