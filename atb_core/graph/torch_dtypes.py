# SPDX-License-Identifier: Apache-2.0
"""Conversion between `DataType` and torch's dtypes; importing this module imports torch."""

from __future__ import annotations

import torch

from atb_core.graph.dtype import DataType

__all__ = ["dtype_from_torch", "dtype_to_torch"]

_TO_TORCH: dict[DataType, torch.dtype] = {dtype: getattr(torch, dtype.short) for dtype in DataType}
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
