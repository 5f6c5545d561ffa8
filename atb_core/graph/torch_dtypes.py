# SPDX-License-Identifier: Apache-2.0
"""Conversion between `DataType` and torch's dtypes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atb_core.graph.arrays import data_type, import_torch
from atb_core.graph.dtype import DataType

if TYPE_CHECKING:
    import torch

__all__ = ["dtype_from_torch", "dtype_to_torch"]


def dtype_to_torch(dtype: DataType) -> torch.dtype:
    """Returns the torch dtype of `dtype`; imports torch."""
    found: torch.dtype = getattr(import_torch(), dtype.short)
    return found


def dtype_from_torch(dtype: torch.dtype) -> DataType:
    """Returns the `DataType` of a torch dtype.

    Raises:
        TypeError: the dtype is not supported; the message lists those that are.
    """
    return data_type(dtype)
