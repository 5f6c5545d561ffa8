# SPDX-License-Identifier: Apache-2.0
"""Matrices of integers as aclnn's products take them: `(integer + offset) * scale`, by rows or by groups of a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np

from atb_core.graph.arrays import HostArray, numpy_dtype
from atb_core.graph.dtype import DataType
from atb_core.graph.quantized import QuantizedRows

#: Formats of checkpoints' matrices that stay integers, and their bits; `atb_quant.matrix` makes such rows.
FORMATS = {"INTEGERS4": 4, "INTEGERS8": 8}
#: Elements of a group of `quantize="int4"`.
_GROUP = 32
# Elements that are converted at a time.
_CHUNK = 1 << 21


@dataclass(frozen=True)
class Integers:
    """Holds a matrix `[n, k]` of integers.

    Attributes:
        dtype: type of the values, of scales and of offsets.
        bits: 8 or 4.
        integers: int8 `[n, k]`, from -8 to 7 for 4 bits.
        scales: `[n, groups]`; float32 where `dtype` cannot hold them.
        offsets: of the same shape; `None` for zeros.
    """

    dtype: DataType
    bits: int
    integers: HostArray
    scales: HostArray
    offsets: HostArray | None

    @property
    def shape(self) -> tuple[int, int]:
        """Returns `n, k`."""
        n, k = self.integers.shape
        return n, k

    @property
    def group(self) -> int:
        """Returns the elements of a group, 0 if a row is one."""
        groups = self.scales.shape[1]
        return 0 if groups == 1 else self.shape[1] // groups

    @property
    def scales_fit(self) -> bool:
        """Returns true if the scales have the type of the values."""
        return bool(self.scales.dtype == numpy_dtype(self.dtype))

    def values(self) -> HostArray:
        """Returns the values, `[n, k]` of `dtype`."""
        n, k = self.shape
        grouped = self.integers.reshape(n, self.scales.shape[1], -1).astype(np.float32)
        if self.offsets is not None:
            grouped += self.offsets.astype(np.float32)[:, :, None]
        values: HostArray = (grouped * self.scales.astype(np.float32)[:, :, None]).reshape(n, k)
        return values.astype(numpy_dtype(self.dtype))

    def arranged(self) -> tuple[HostArray, HostArray, HostArray | None]:
        """Returns integers, scales and offsets in the order in which the device reads them.

        By rows the integers are `[n, k]`, in groups `[k, n]` with scales `[groups, n]`. Two integers of 4 bits are a
        byte, the first in its low half.
        """
        integers, scales, offsets = self.integers, self.scales, self.offsets
        if self.group:
            integers, scales = integers.T, scales.T
            offsets = None if offsets is None else offsets.T
        if self.bits == 4:
            low, high = integers[:, ::2].view(np.uint8), integers[:, 1::2].view(np.uint8)
            integers = low & 15 | high << 4
        integers, scales = np.ascontiguousarray(integers), np.ascontiguousarray(scales)
        return integers, scales, None if offsets is None else np.ascontiguousarray(offsets)


def quantized(weight: HostArray, dtype: DataType, quantization: str) -> Integers:
    """Returns a matrix `[n, k]` as integers of 8 bits with a scale for each row, or of 4 bits in groups of 32.

    Groups also have an offset. Scales and offsets are rounded to `dtype` first, so integers make up for that.
    """
    n, k = weight.shape
    bits = int(quantization.removeprefix("int"))
    groups = k // _GROUP if bits == 4 and k % _GROUP == 0 else 1
    kind = numpy_dtype(dtype)
    integers = np.empty((n, groups, k // groups), np.int8)
    scales = np.empty((n, groups, 1), kind)
    offsets = np.empty((n, groups, 1), kind) if bits == 4 else None
    step = max(1, _CHUNK // max(1, k))
    for first in range(0, n, step):
        rows = slice(first, min(first + step, n))
        values = weight[rows].astype(np.float32).reshape(-1, groups, k // groups)
        if offsets is None:
            scale, offset = np.abs(values).max(-1, keepdims=True) / 127, np.float32(0)
        else:
            scale, offset = _asymmetric(values, kind)
            offsets[rows] = offset
        scales[rows] = scale
        rounded = scales[rows].astype(np.float32)
        shifted = np.divide(values, rounded, out=np.zeros_like(values), where=rounded != 0)
        shifted -= 0 if offsets is None else offsets[rows].astype(np.float32)
        integers[rows] = np.clip(np.rint(shifted), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    flat = None if offsets is None else offsets[:, :, 0]
    return Integers(dtype, bits, integers.reshape(n, k), scales[:, :, 0], flat)


def _asymmetric(values: HostArray, kind: np.dtype) -> tuple[HostArray, HostArray]:
    """Returns scales and offsets by which integers from -8 to 7 reach from a group's smallest element to its largest.

    A group whose elements hardly differ is its smallest element, with an offset of 1.
    """
    low = values.min(-1, keepdims=True)
    scale = ((values.max(-1, keepdims=True) - low) / 15).astype(kind).astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        offset = low / scale + 8
        equal = ~np.isfinite(offset.astype(kind).astype(np.float32))
    return np.where(equal, low, scale), np.where(equal, np.float32(1), offset)


def joined(parts: Sequence[QuantizedRows], dtype: DataType) -> Integers:
    """Returns pieces of a matrix, one below the other, as one of their widest integers and smallest groups."""
    columns = parts[0].columns
    pieces = [_read(part) for part in parts]
    size = gcd(*(columns // scales.shape[1] for _, scales, _ in pieces))
    kind = numpy_dtype(dtype)
    scales, zeros = (
        np.concatenate([np.repeat(piece[index], columns // size // piece[index].shape[1], 1) for piece in pieces])
        for index in (1, 2)
    )
    offsets = -zeros.astype(kind) if zeros.any() else None
    integers = np.concatenate([piece[0] for piece in pieces])
    with np.errstate(over="ignore"):
        rounded = scales.astype(kind)
    # Within a range all errors are less; outside of it, an element would have fewer bits than if it was expanded.
    if np.allclose(rounded.astype(np.float32), scales, rtol=2.0**-7, atol=0):
        scales = rounded
    return Integers(dtype, max(FORMATS[part.format] for part in parts), integers, scales, offsets)


def _read(part: QuantizedRows) -> tuple[HostArray, HostArray, HostArray]:
    """Returns integers `[n, k]`, float32 scales and zeros `[n, groups]`."""
    rest = np.ascontiguousarray(part.blocks[:, part.columns :]).view(np.float32)
    groups = rest.shape[1] // 2
    return part.blocks[:, : part.columns].view(np.int8), rest[:, :groups], rest[:, groups:]
