# SPDX-License-Identifier: Apache-2.0
"""Reads a row-major array of plain elements, or one slice of it, from a file into a fresh torch tensor."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from atb_core.checkpoint.files import CheckedFile
from atb_core.graph.dtype import DataType

if TYPE_CHECKING:
    import torch

# Rows of an inner-dimension slice are read whole and cut; this bounds what is read ahead of the cut.
_CHUNK_BYTES = 8 << 20


def empty(shape: tuple[int, ...], dtype: DataType) -> torch.Tensor:
    """Returns an uninitialized CPU tensor."""
    import torch

    return torch.empty(shape, dtype=getattr(torch, dtype.short))


def memory_of(tensor: torch.Tensor) -> memoryview:
    """Returns the bytes of a contiguous tensor, writable."""
    import torch

    flat = tensor.reshape(-1)
    # numpy has no bfloat16 and torch cannot view an empty tensor as bytes, hence both detours.
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(bytearray())


def read_array(file: CheckedFile, offset: int, shape: tuple[int, ...], dtype: DataType, what: str) -> torch.Tensor:
    """Reads the array of `shape` that starts at byte `offset`."""
    tensor = empty(shape, dtype)
    file.read_into(offset, memory_of(tensor), what)
    return tensor


def read_array_slice(
    file: CheckedFile,
    offset: int,
    shape: tuple[int, ...],
    dtype: DataType,
    bounds: tuple[int, int, int],
    what: str,
) -> torch.Tensor:
    """Reads `[start, stop)` of dimension `dim` of the array, where `bounds` is (dim, start, stop), already checked."""
    dim, start, stop = bounds
    inner = math.prod(shape[dim + 1 :]) * dtype.itemsize
    outer = math.prod(shape[:dim])
    out = empty((*shape[:dim], stop - start, *shape[dim + 1 :]), dtype)
    if outer == 1:
        file.read_into(offset + start * inner, memory_of(out), what)
        return out
    row_bytes = shape[dim] * inner
    if out.numel() == 0:
        return out
    import torch

    # The view has one row per outer index, in bytes, so one loop serves every rank and element type.
    rows = out.view(outer, -1).view(torch.uint8)
    step = max(1, _CHUNK_BYTES // row_bytes)
    buffer = torch.empty((min(step, outer), row_bytes), dtype=torch.uint8)
    for first in range(0, outer, step):
        count = min(step, outer - first)
        chunk = buffer[:count]
        file.read_into(offset + first * row_bytes, memory_of(chunk), what)
        rows[first : first + count] = chunk[:, start * inner : stop * inner]
    return out
