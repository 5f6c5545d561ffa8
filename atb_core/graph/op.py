# SPDX-License-Identifier: Apache-2.0
"""What an op is: typed attributes, shape and dtype rule, reference, samples.

An op is a frozen dataclass: the class is the operation, an instance is the operation with its
attributes, and two instances are equal when they compute the same thing. Subclassing `Op` registers it; an
op from outside of core has a namespace, `class Scale(Op, namespace="atb_foo")`, and is called `atb_foo.Scale`.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar

from atb_core.errors import GraphError, ShapeError
from atb_core.graph.dim import DimLike, Shape, shape_text
from atb_core.graph.dtype import DataType

if TYPE_CHECKING:
    import torch

_CORE = "atb_core"
_registry: dict[str, type[Op]] = {}


@dataclasses.dataclass(frozen=True)
class Sample:
    """One test case of an op: real inputs, and the symbolic names of their sizes where these matter."""

    op: Op
    inputs: tuple[torch.Tensor, ...]
    label: str = ""


class Op:
    """Base of all operations. Attributes are the dataclass fields of the subclass."""

    #: Indices of inputs that are written in place.
    writes: ClassVar[tuple[int, ...]] = ()
    #: Engines that run the op; a test holds this against what the backends really have. A kernel that a plugin
    #: announces adds its backend when it is first needed: `graph.custom_ops.supports` knows it before.
    backends: ClassVar[frozenset[str]] = frozenset({"reference", "cpu"})
    #: Comes before the name of an op from outside of core; by convention the package it is imported from.
    namespace: ClassVar[str] = ""
    #: Names of the inputs, for messages; optional ones last.
    input_names: ClassVar[tuple[str, ...]] = ("input",)
    #: True where the output is the input's memory under another shape.
    is_view: ClassVar[bool] = False

    def __init_subclass__(cls, abstract: bool = False, namespace: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if namespace is not None:
            cls.namespace = namespace
            cls.backends = frozenset({"reference"})
        if not abstract:
            _register(cls)

    @classmethod
    def op_name(cls) -> str:
        """The name under which the op is registered, recorded and saved."""
        return f"{cls.namespace}.{cls.__name__}" if cls.namespace else cls.__name__

    @property
    def name(self) -> str:
        return self.op_name()

    @property
    def num_inputs(self) -> int:
        """How many inputs an instance with these attributes takes."""
        return len(self.input_names)

    @property
    def num_outputs(self) -> int:
        return 1

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        """Shapes of the outputs; raises ShapeError with the sizes that do not fit."""
        raise GraphError(f"op {self.name} declares no shape rule", hint=f"implement {self.name}.infer_shapes")

    def infer_dtypes(self, *dtypes: DataType | None) -> tuple[DataType | None, ...]:
        """Element types of the outputs; by default every output has the first input's."""
        return (dtypes[0],) * self.num_outputs

    def resolve(self, *shapes: Shape) -> Op:
        """The same op with every attribute that depends on the inputs' shapes made explicit."""
        return self

    def reference(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The op's meaning: float32 inside, rounded once to the output's type. Writes in place if `writes`."""
        raise GraphError(f"op {self.name} has no reference", hint=f"implement {self.name}.reference")

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        """Test cases; every registered op must have some."""
        return ()

    def attributes(self) -> dict[str, Any]:
        """Attributes as plain values: enums and element types as their text."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {field.name: _plain(getattr(self, field.name)) for field in fields}


def _register(op: type[Op]) -> None:
    """Takes a new class into the registry; GraphError for a name that is another's or has no owner."""
    name, place = op.op_name(), f"{op.__module__}.{op.__qualname__}"
    if not op.namespace and op.__module__.partition(".")[0] != _CORE:
        raise GraphError(
            f"the op {place} needs a namespace: names without one belong to core",
            hint=f'Write class {op.__name__}(Op, namespace="{op.__module__.partition(".")[0]}").',
        )
    if op.namespace and not op.namespace.isidentifier():
        raise GraphError(f"the namespace {op.namespace!r} of the op {place} is no identifier")
    known = _registry.get(name)
    # The same class again is a module that was reloaded, or a notebook's cell that was run twice.
    if known is not None and f"{known.__module__}.{known.__qualname__}" != place:
        raise GraphError(f"the op name {name!r} of {place} is taken by {known.__module__}.{known.__qualname__}")
    _registry[name] = op


def _plain(value: Any) -> Any:
    if isinstance(value, DataType):
        return value.short
    if isinstance(value, Enum):
        return value.value
    return value


def forget_ops(package: str) -> None:
    """Takes out the ops that modules of `package` defined which are no longer imported: its import failed half-way."""
    for name, op in list(_registry.items()):
        if op.__module__.partition(".")[0] == package and op.__module__ not in sys.modules:
            del _registry[name]


def registered_ops() -> Mapping[str, type[Op]]:
    """Every known op by name."""
    return dict(_registry)


@dataclasses.dataclass(frozen=True)
class AttributeVariable:
    """Stands for any value of an attribute in the pattern of a fusion."""

    name: str


def is_variable(value: object) -> bool:
    return isinstance(value, AttributeVariable)


def require(condition: bool, message: str) -> None:
    """Raises ShapeError(message) unless the condition holds; the recorder adds op, place and shapes."""
    if not condition:
        raise ShapeError(message)


def same_size(a: DimLike, b: DimLike, what: str) -> None:
    require(a == b, f"{what}: {a} and {b} differ")


def normal_axis(axis: int, rank: int, what: str = "axis") -> int:
    """`axis` counted from the front; ShapeError if the tensor has no such axis."""
    require(-rank <= axis < rank, f"{what} {axis} does not exist in a tensor of {rank} dimensions")
    return axis % rank


def broadcast(a: Shape, b: Shape) -> Shape:
    """The shape of an elementwise result under numpy's rules."""
    width = max(len(a), len(b))
    padded_a: Shape = (1,) * (width - len(a)) + a
    padded_b: Shape = (1,) * (width - len(b)) + b
    result: list[DimLike] = []
    for x, y in zip(padded_a, padded_b, strict=True):
        require(x == y or x == 1 or y == 1, f"{shape_text(a)} and {shape_text(b)} do not broadcast")
        result.append(y if x == 1 else x)
    return tuple(result)


class AttributeEnum(str, Enum):
    """An enumerated attribute; unknown names are refused with the list of the known ones."""

    @classmethod
    def _missing_(cls, value: object) -> AttributeEnum:
        known = ", ".join(str(member.value) for member in cls)
        raise GraphError(f"{cls.__name__} has no value {value!r}", hint=f"known values: {known}")

    def __str__(self) -> str:
        return str(self.value)
