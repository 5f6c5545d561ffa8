# SPDX-License-Identifier: Apache-2.0
"""Conversion between `DataType` and torch's dtypes; importing this module imports torch."""

from __future__ import annotations

import torch

from atb_core.graph.dtype import DataType

__all__ = ["dtype_from_torch", "dtype_to_torch"]

_TO_TORCH = {
    DataType.FLOAT: torch.float32,
    DataType.FLOAT16: torch.float16,
    DataType.BF16: torch.bfloat16,
    DataType.INT8: torch.int8,
    DataType.INT32: torch.int32,
    DataType.INT64: torch.int64,
    DataType.BOOL: torch.bool,
}
_FROM_TORCH = {value: key for key, value in _TO_TORCH.items()}


def dtype_to_torch(dtype: DataType) -> torch.dtype:
    """Returns the torch dtype of `dtype`."""
    return _TO_TORCH[dtype]


def dtype_from_torch(dtype: torch.dtype) -> DataType:
    """Returns the `DataType` of a torch dtype.

    Raises:
        TypeError: the dtype is not supported; the message lists those that are.
    """
    if dtype in _FROM_TORCH:
        return _FROM_TORCH[dtype]
    raise TypeError(f"{dtype} is not supported; supported: {', '.join(str(known) for known in _FROM_TORCH)}")
