# SPDX-License-Identifier: Apache-2.0
"""Ops: operations with typed attributes, shape and dtype rules and a reference.

An op is a frozen dataclass: the class is the operation, an instance is the operation with its attributes, and equal
instances compute the same. Subclassing `Op` registers the class. A custom op, which a plugin defines, has a namespace:
`class Scale(Op, namespace="atb_foo")` is called `atb_foo.Scale`.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import operator
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from atb_core.errors import GraphError, ShapeError, shown
from atb_core.graph.dim import DimLike, Shape, shape_text
from atb_core.graph.dtype import AttributeEnum, DataType

if TYPE_CHECKING:
    import torch

#: Tensor with data; `graph.Tensor` is the symbolic one.
RealTensor: TypeAlias = "torch.Tensor"

_CORE = "atb_core"
_registry: dict[str, type[Op]] = {}


class Op:
    """Base class of all ops; attributes are the dataclass fields of the subclass."""

    #: Indices of inputs that are written in place.
    writes: ClassVar[tuple[int, ...]] = ()
    #: Backends that run the op; tests compare this with what the backends have. The kernel of a plugin adds its backend
    #: when it is first needed; `graph.custom_ops.supports` includes it before that.
    backends: ClassVar[frozenset[str]] = frozenset({"reference", "cpu", "atb"})
    #: Prefix of the name of a custom op; by convention the package that it is imported from.
    namespace: ClassVar[str] = ""
    #: Names of all inputs, optional ones too, in their order.
    input_names: ClassVar[tuple[str, ...]] = ("x",)
    #: What dtypes each of `input_names` takes: "any", "float", torch's names, or the name of an earlier input for that
    #: one's dtype; joined by "|". Inputs beyond the end take any.
    input_dtypes: ClassVar[tuple[str, ...]] = ()
    #: Dtype of each output: torch's name, or an input's name for that one's dtype. Empty: all have the first input's.
    output_dtypes: ClassVar[tuple[str, ...]] = ()
    #: Inputs that are matrices of which whole rows are read, so that an engine may store the rows in blocks.
    row_operands: ClassVar[tuple[str, ...]] = ()
    #: True where the output is the input's memory under another shape.
    is_view: ClassVar[bool] = False
    #: Attributes with their enumerations, whose values may also be given as text.
    enums: ClassVar[tuple[tuple[str, type[AttributeEnum]], ...]] = ()

    def __init_subclass__(cls, abstract: bool = False, namespace: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if namespace is not None:
            cls.namespace = namespace
            cls.backends = frozenset({"reference"})
        if not abstract:
            _register(cls)

    def __post_init__(self) -> None:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        kinds: dict[str, Callable[[Any], Any]] = {
            field.name: _KINDS[kind]
            for field in fields
            if (kind := field.type if isinstance(field.type, str) else inspect.formatannotation(field.type)) in _KINDS
        }
        for name, convert in (kinds | dict(self.enums)).items():
            value = getattr(self, name)
            if isinstance(value, AttributeVariable):
                continue
            try:
                object.__setattr__(self, name, convert(value))
            except (TypeError, ValueError, OverflowError) as error:
                raise GraphError(f"{name} of {self.name} cannot be {shown(value)}: {error}") from None
        if not any(isinstance(getattr(self, field.name), AttributeVariable) for field in fields):
            self.check_attributes()

    def check_attributes(self) -> None:
        """Raises GraphError for attributes that do not go together; none of them is a placeholder of a pattern."""

    @classmethod
    def op_name(cls) -> str:
        """Returns the name under which the op is registered, recorded and saved."""
        return f"{cls.namespace}.{cls.__name__}" if cls.namespace else cls.__name__

    @property
    def name(self) -> str:
        """Returns the name of the op's class."""
        return self.op_name()

    @property
    def operands(self) -> tuple[str, ...]:
        """Returns the names of the inputs of an instance: all, without `bias` if its attribute `has_bias` is false."""
        if getattr(self, "has_bias", True):
            return self.input_names
        return tuple(name for name in self.input_names if name != "bias")

    @property
    def num_inputs(self) -> int:
        """Returns the number of inputs of an instance with these attributes."""
        return len(self.operands)

    @property
    def num_outputs(self) -> int:
        """Returns the number of outputs of an instance with these attributes."""
        return 1

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        """Returns the shapes of the outputs, which depend on nothing but attributes and shapes: they are remembered.

        Raises:
            ShapeError: the inputs' sizes do not fit; the message contains them.
        """
        raise GraphError(f"op {self.name} declares no shape rule", hint=f"Implement {self.name}.infer_shapes.")

    def infer_dtypes(self, *dtypes: DataType | None) -> tuple[DataType | None, ...]:
        """Returns the dtypes of the outputs, by default as `output_dtypes` says; `None` for unknown ones."""
        if not self.output_dtypes:
            return (dtypes[0],) * self.num_outputs
        known = dict(zip(self.operands, dtypes, strict=True))
        return tuple(known[rule] if rule in known else DataType.from_short(rule) for rule in self.output_dtypes)

    def check_dtypes(self, *dtypes: DataType | None) -> None:
        """Checks the known dtypes of the inputs, by default against `input_dtypes`.

        Raises:
            ShapeError: the op does not take them; the message names the input.
        """
        rules, known = dict(zip(self.input_names, self.input_dtypes, strict=False)), dict[str, DataType | None]()
        for name, dtype in zip(self.operands, dtypes, strict=False):
            if dtype is not None and name in rules:
                _check_dtype(name, dtype, rules[name].split("|"), known)
            known[name] = dtype

    def resolve(self, *shapes: Shape) -> Op:
        """Returns the same op with explicit values for all attributes that depend on the shapes of the inputs."""
        return self

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        """Computes the outputs in torch, which specifies the op: float32 inside, rounded once to the output's dtype.

        Inputs in `writes` are written in place.
        """
        raise GraphError(f"op {self.name} has no reference", hint=f"Implement {self.name}.reference.")

    def attributes(self) -> dict[str, Any]:
        """Returns the attributes as plain values: enums and dtypes as text."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {field.name: _plain(getattr(self, field.name)) for field in fields}


def _bool(value: Any) -> bool:
    if value not in (False, True):
        raise TypeError("it must be True or False")
    return bool(value)


def _int(value: Any) -> int:
    number = operator.index(value)
    if isinstance(value, bool) or abs(number) >= 1 << 63:
        raise TypeError("it must be an integer of 64 bits")
    return number


def _float(value: Any) -> float:
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
        raise TypeError("it must be a finite number")
    return float(value)


def _str(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("it must be text")
    return value


# What makes the plain value of an attribute, by its annotation. Other attributes, of plugins' ops, are not checked.
_KINDS: dict[str, Callable[[Any], Any]] = {
    "bool": _bool,
    "int": _int,
    "float": _float,
    "str": _str,
    "tuple[int, ...]": lambda value: tuple(map(_int, value)),
    "DataType": DataType,
    "DataType | None": lambda value: None if value is None else DataType(value),
}


def _register(op: type[Op]) -> None:
    name, place = op.op_name(), f"{op.__module__}.{op.__qualname__}"
    if not op.namespace and op.__module__.partition(".")[0] != _CORE:
        raise GraphError(
            f"the op {place} needs a namespace: names without one belong to core",
            hint=f'Write class {op.__name__}(Op, namespace="{op.__module__.partition(".")[0]}").',
        )
    if op.namespace and not op.namespace.isidentifier():
        raise GraphError(f"the namespace {op.namespace!r} of the op {place} is not an identifier")
    other = _registry.get(name, op)
    other_place = f"{other.__module__}.{other.__qualname__}"
    # The same class again comes from a reloaded module, or from a notebook cell that was run twice.
    if other_place != place:
        raise GraphError(f"the op name {name!r} of {place} is taken by {other_place}")
    _registry[name] = op


def _plain(value: Any) -> Any:
    if isinstance(value, DataType):
        return value.short
    if isinstance(value, Enum):
        return value.value
    return value


def _check_dtype(name: str, dtype: DataType, rules: Sequence[str], known: Mapping[str, DataType | None]) -> None:
    wanted = []
    for rule in rules:
        if rule == "float":
            fits, text = dtype.is_float, "a floating-point type"
        elif rule in known:
            other = known[rule]
            fits, text = other in (None, dtype), f"{other.short if other else '?'} like {rule}"
        else:
            fits, text = rule in ("any", dtype.short), rule
        if fits:
            return
        wanted.append(text)
    raise ShapeError(f"{name} must be {' or '.join(wanted)}, not {dtype.short}")


def forget_ops(package: str) -> None:
    """Removes the ops of `package` whose modules are no longer imported, as after a failed import."""
    for name, op in list(_registry.items()):
        if op.__module__.partition(".")[0] == package and op.__module__ not in sys.modules:
            del _registry[name]


def registered_ops() -> Mapping[str, type[Op]]:
    """Returns all registered ops by name."""
    return dict(_registry)


@dataclasses.dataclass(frozen=True)
class AttributeVariable:
    """Placeholder for any value of an attribute in the pattern of a fusion."""

    name: str


def as_tuple(value: Any) -> tuple[Any, ...]:
    """Returns a sequence as a tuple, and anything else alone in one; the op checks what is in it."""
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)


def require(condition: bool, message: str) -> None:
    """Raises `ShapeError(message)` unless the condition holds; the recorder adds op, place and shapes."""
    if not condition:
        raise ShapeError(message)


def same_size(a: DimLike, b: DimLike, what: str) -> None:
    """Raises ShapeError unless the two sizes are equal."""
    require(a == b, f"{what}: {a} and {b} differ")


def normal_axis(axis: int, rank: int, what: str = "axis") -> int:
    """Returns `axis` counted from the front.

    Raises:
        ShapeError: the tensor has no such axis.
    """
    require(-rank <= axis < rank, f"{what} {axis} does not exist in a tensor of {rank} dimensions")
    return axis % rank


def broadcast(a: Shape, b: Shape) -> Shape:
    """Returns the shape of an elementwise result under numpy's broadcasting rules."""
    width = max(len(a), len(b))
    padded_a: Shape = (1,) * (width - len(a)) + a
    padded_b: Shape = (1,) * (width - len(b)) + b
    result: list[DimLike] = []
    for x, y in zip(padded_a, padded_b, strict=True):
        require(x == y or x == 1 or y == 1, f"{shape_text(a)} and {shape_text(b)} do not broadcast")
        result.append(y if x == 1 else x)
    return tuple(result)
