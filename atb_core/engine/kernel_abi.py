# SPDX-License-Identifier: Apache-2.0
"""Kernel ABI of `include/atb_core/kernel_abi.h` in ctypes, for kernels written in Python."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from atb_core.graph.dtype import DataType

if TYPE_CHECKING:
    import numpy as np

MAGIC = 0x4B425441
#: In the order of the numbers in the header.
_DTYPES = tuple(map(DataType.from_short, ("float32", "float16", "bfloat16", "int8", "int32", "int64", "bool")))


class KernelTensor(ctypes.Structure):
    """Contiguous tensor of a call."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("_shape", ctypes.POINTER(ctypes.c_int64)),
        ("rank", ctypes.c_int32),
        ("_dtype", ctypes.c_int32),
    )

    @property
    def shape(self) -> tuple[int, ...]:
        """Returns the sizes."""
        return tuple(self._shape[: self.rank])

    @property
    def dtype(self) -> DataType:
        """Returns the element type."""
        return _DTYPES[int(self._dtype)]

    def array(self) -> np.ndarray[Any, Any]:
        """Returns the tensor's memory without a copy, valid during the call; bfloat16 as its bits in uint16.

        Raises:
            ValueError: the call is a `check`, in which tensors have no data.
        """
        import numpy as np

        # numpy has no bfloat16.
        shape, dtype = self.shape, np.dtype("uint16" if self.dtype is DataType.BF16 else self.dtype.short)
        if 0 in shape:
            return np.empty(shape, dtype)
        if self.data is None:
            raise ValueError("tensors have no data in check")
        size = dtype.itemsize * int(np.prod(shape))
        return np.frombuffer(memoryview((ctypes.c_char * size).from_address(self.data)), dtype).reshape(shape)


class KernelAttribute(ctypes.Structure):
    """Attribute of the op of a call."""

    _fields_ = (
        ("_name", ctypes.c_char_p),
        ("_integer", ctypes.c_int64),
        ("_number", ctypes.c_double),
        ("_text", ctypes.c_char_p),
        ("_list", ctypes.POINTER(ctypes.c_int64)),
        ("_type", ctypes.c_int32),
        ("_reserved", ctypes.c_int32),
    )

    @property
    def name(self) -> str:
        """Returns the attribute's name."""
        return str(self._name.decode())

    @property
    def value(self) -> bool | int | float | str | list[int]:
        """Returns the attribute's value."""
        if self._type == 0:
            return bool(self._integer)
        if self._type == 1:
            return int(self._integer)
        if self._type == 2:
            return float(self._number)
        return str(self._text.decode()) if self._type == 3 else list(self._list[: self._integer])


class KernelCall(ctypes.Structure):
    """Argument of `check` and `run`; the header describes each member."""

    _fields_ = (
        ("_size", ctypes.c_size_t),
        ("_op", ctypes.c_char_p),
        ("_inputs", ctypes.POINTER(KernelTensor)),
        ("_outputs", ctypes.POINTER(KernelTensor)),
        ("_attributes", ctypes.POINTER(KernelAttribute)),
        ("_num_inputs", ctypes.c_int32),
        ("_num_outputs", ctypes.c_int32),
        ("_num_attributes", ctypes.c_int32),
        ("part", ctypes.c_int32),
        ("parts", ctypes.c_int32),
        ("_reserved", ctypes.c_int32),
        ("_message", ctypes.c_void_p),
        ("_message_size", ctypes.c_size_t),
        ("scratch", ctypes.c_void_p),
        ("scratch_bytes", ctypes.c_size_t),
        ("work", ctypes.c_double),
    )

    @property
    def op(self) -> str:
        """Returns the op's name."""
        return str(self._op.decode())

    @property
    def inputs(self) -> list[KernelTensor]:
        """Returns the inputs in the op's order."""
        return list(self._inputs[: self._num_inputs])

    @property
    def outputs(self) -> list[KernelTensor]:
        """Returns the outputs in the op's order."""
        return list(self._outputs[: self._num_outputs])

    @property
    def attributes(self) -> dict[str, bool | int | float | str | list[int]]:
        """Returns the attributes by name."""
        return {attribute.name: attribute.value for attribute in self._attributes[: self._num_attributes]}

    def share(self, n: int) -> slice:
        """Returns the range of this part in `n` units of work; the parts cover each unit once."""
        each, rest = divmod(n, self.parts)
        begin = each * self.part + min(self.part, rest)
        return slice(begin, begin + each + (self.part < rest))

    def fail(self, text: str) -> int:
        """Stores an error message, cut to the buffer's size, and returns the status of a failure."""
        message = text.encode(errors="replace")[: self._message_size - 1] + b"\0"
        ctypes.memmove(self._message, message, len(message))
        return 1


#: Type of `check` and `run`; ctypes holds the GIL during the call.
KernelFunction = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.POINTER(KernelCall))


class Kernel(ctypes.Structure):
    """Constant that a library exports with ATB_KERNEL."""

    _fields_ = (
        ("magic", ctypes.c_uint32),
        ("abi_version", ctypes.c_uint32),
        ("check", ctypes.c_void_p),
        ("run", ctypes.c_void_p),
    )
