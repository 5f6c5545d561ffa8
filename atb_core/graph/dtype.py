# SPDX-License-Identifier: Apache-2.0
"""Enumerations: their base, and the element types of tensors with ACL's names as values."""

from __future__ import annotations

from enum import Enum

from atb_core.errors import GraphError


class AttributeEnum(str, Enum):
    """Base of enumerations with ATB's names; an unknown value is refused with the list of the known ones."""

    # Members are equal to their values; and `Enum` has a slower one, in Python.
    __hash__ = str.__hash__

    @classmethod
    def _missing_(cls, value: object) -> AttributeEnum:
        known = ", ".join(str(member.value) for member in cls)
        raise GraphError(f"{cls.__name__} has no value {value!r:.80}", hint=f"Known values: {known}.")

    def __str__(self) -> str:
        return str(self.value)


class DataType(AttributeEnum):
    """Element type of a tensor; its value is ACL's name, `short` is torch's."""

    FLOAT = "ACL_FLOAT"
    FLOAT16 = "ACL_FLOAT16"
    BF16 = "ACL_BF16"
    INT8 = "ACL_INT8"
    INT32 = "ACL_INT32"
    INT64 = "ACL_INT64"
    BOOL = "ACL_BOOL"

    # The same members by the names that ATB-Models gives them.
    ACL_FLOAT = FLOAT
    ACL_FLOAT16 = FLOAT16
    ACL_BF16 = BF16
    ACL_INT8 = INT8
    ACL_INT32 = INT32
    ACL_INT64 = INT64
    ACL_BOOL = BOOL

    @property
    def short(self) -> str:
        """Returns torch's name of the type, e.g. `bfloat16` or `int32`."""
        return _TYPES[self][0]

    @property
    def itemsize(self) -> int:
        """Returns the size of one element in bytes."""
        return _TYPES[self][1]

    @property
    def is_float(self) -> bool:
        """Returns `True` for floating-point types."""
        return self in (DataType.FLOAT, DataType.FLOAT16, DataType.BF16)

    @classmethod
    def from_short(cls, name: str) -> DataType:
        """Returns the type that torch calls `name`.

        Raises:
            ValueError: no type has this name; the message lists the known ones.
        """
        if name in _BY_SHORT:
            return _BY_SHORT[name]
        raise ValueError(f"unknown element type {name!r}; known: {', '.join(_BY_SHORT)}")


#: Torch's name and the size in bytes of each type.
_TYPES = {
    DataType.FLOAT: ("float32", 4),
    DataType.FLOAT16: ("float16", 2),
    DataType.BF16: ("bfloat16", 2),
    DataType.INT8: ("int8", 1),
    DataType.INT32: ("int32", 4),
    DataType.INT64: ("int64", 8),
    DataType.BOOL: ("bool", 1),
}
_BY_SHORT = {short: dtype for dtype, (short, _) in _TYPES.items()}
