# SPDX-License-Identifier: Apache-2.0
"""Element types of tensors, with ACL's names as values."""

from __future__ import annotations

from enum import Enum


class DataType(str, Enum):
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
        return _SHORT[self]

    @property
    def itemsize(self) -> int:
        """Returns the size of one element in bytes."""
        return _ITEMSIZE[self]

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
        for dtype, short in _SHORT.items():
            if short == name:
                return dtype
        raise ValueError(f"unknown element type {name!r}; known: {', '.join(_SHORT.values())}")


_SHORT = {
    DataType.FLOAT: "float32",
    DataType.FLOAT16: "float16",
    DataType.BF16: "bfloat16",
    DataType.INT8: "int8",
    DataType.INT32: "int32",
    DataType.INT64: "int64",
    DataType.BOOL: "bool",
}
_ITEMSIZE = {
    DataType.FLOAT: 4,
    DataType.FLOAT16: 2,
    DataType.BF16: 2,
    DataType.INT8: 1,
    DataType.INT32: 4,
    DataType.INT64: 8,
    DataType.BOOL: 1,
}
