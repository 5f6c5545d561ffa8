# SPDX-License-Identifier: Apache-2.0
"""Arrays with data, of numpy and of torch, and the element types of both.

Inside of the project values on the host are numpy arrays; numpy has no bfloat16, which `ml_dtypes` adds. Programs may
give torch tensors instead. Importing this module does not import torch: who has a tensor has imported it already.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from ml_dtypes import bfloat16

from atb_core.errors import BackendUnavailableError
from atb_core.graph.dtype import DataType

if TYPE_CHECKING:
    import torch
    from typing_extensions import TypeIs

__all__ = [
    "Array", "HostArray", "data_type", "dtype_of", "dtype_to_torch", "from_dlpack", "import_torch", "is_tensor",
    "numpy_dtype", "to_numpy", "to_torch",
]  # fmt: skip

#: An array of numpy, of any element type.
HostArray: TypeAlias = "np.ndarray[Any, Any]"
#: Anything that engines and models take.
Array: TypeAlias = "HostArray | torch.Tensor"

_TO_NUMPY: dict[DataType, np.dtype[Any]] = {
    dtype: np.dtype(bfloat16 if dtype is DataType.BF16 else dtype.short) for dtype in DataType
}
_SHORT = {dtype.short: dtype for dtype in DataType}
# Dtypes of torch are added when they are first met.
_KNOWN: dict[object, DataType] = {value: key for key, value in _TO_NUMPY.items()}


def numpy_dtype(dtype: DataType) -> np.dtype[Any]:
    """Returns the numpy dtype of `dtype`."""
    return _TO_NUMPY[dtype]


def is_tensor(value: object) -> TypeIs[torch.Tensor]:
    """Returns true for a torch tensor, without importing torch."""
    tensor = getattr(sys.modules.get("torch"), "Tensor", None)
    return tensor is not None and isinstance(value, tensor)


def data_type(dtype: object) -> DataType:
    """Returns the `DataType` of a dtype of numpy or torch.

    Raises:
        TypeError: engines do not have the type; the message lists those that they have.
    """
    found = dtype if isinstance(dtype, DataType) else _KNOWN.get(dtype)
    if found is None:
        name = str(dtype).removeprefix("torch.")
        if str(dtype) == name or name not in _SHORT:
            raise TypeError(f"{dtype} is not supported; supported: {', '.join(_SHORT)}")
        found = _KNOWN[dtype] = _SHORT[name]
    return found


def dtype_of(array: Array) -> DataType:
    """Returns the element type of an array or a tensor; raises TypeError as `data_type`."""
    return data_type(array.dtype)


def from_dlpack(value: Any) -> Array:
    """Returns an array over the memory of another library's array, by DLPack; numpy's and torch's are returned.

    Raises:
        TypeError: it has no `__dlpack__`, or numpy cannot read what that gives.
    """
    if isinstance(value, np.ndarray) or is_tensor(value):
        return value
    kind = type(value).__name__
    if not (hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__")):
        raise TypeError(f"must be a torch.Tensor or a numpy array, not {kind}; others need __dlpack__")
    try:
        return np.from_dlpack(value)
    except Exception as error:  # the library's own code runs
        reason = str(error)[:300] or type(error).__name__
        raise TypeError(
            f"cannot be read from {kind} by DLPack: {reason}. numpy.asarray(array) may copy it to host memory"
        ) from error


def to_numpy(array: Array) -> HostArray:
    """Returns the array itself, or a tensor's memory as an array; tensors in other memory than the host's are copied.

    Raises:
        TypeError: `array` is neither.
    """
    if isinstance(array, np.ndarray):
        return array
    if not is_tensor(array):
        raise TypeError(f"a numpy array or a torch.Tensor is needed, not {type(array).__name__}")
    if str(array.dtype) == "torch.bfloat16":
        return array.view(sys.modules["torch"].int16).numpy(force=True).view(bfloat16)
    converted: HostArray = array.numpy(force=True)
    return converted


def import_torch() -> ModuleType:
    """Returns the module `torch`.

    Raises:
        BackendUnavailableError: it is not installed, or cannot be imported; the hint has the line for pip.
    """
    try:
        return import_module("torch")
    except ImportError as error:
        hint = "pip install torch; docs/install.md names the smaller build for the CPU alone."
        raise BackendUnavailableError(f"torch is needed here, and cannot be imported: {error}", hint=hint) from error


def to_torch(array: Array) -> torch.Tensor:
    """Returns the tensor itself, or a tensor over the memory of an array; imports torch, see `import_torch`."""
    if not isinstance(array, np.ndarray):
        return array
    torch = sys.modules.get("torch") or import_torch()
    if array.dtype == bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)  # type: ignore[no-any-return]
    return torch.from_numpy(array)  # type: ignore[no-any-return]


def dtype_to_torch(dtype: DataType) -> torch.dtype:
    """Returns the torch dtype of `dtype`; imports torch, see `import_torch`."""
    found: torch.dtype = getattr(import_torch(), dtype.short)
    return found
