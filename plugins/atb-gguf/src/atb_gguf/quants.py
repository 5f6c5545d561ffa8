# SPDX-License-Identifier: Apache-2.0
"""Decodes GGUF's quantised blocks to floats.

A block holds 32 or 256 consecutive elements of a row. Each function takes blocks `[n, bytes]` (uint8) and returns
`[n, elements]` (float32), rounding exactly where the reference decoder rounds, so results are equal bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from gguf.constants import GGMLQuantizationType as Type

from atb_core.graph import DataType
from atb_core.graph.arrays import HostArray, numpy_dtype

Bytes: TypeAlias = npt.NDArray[np.uint8]
Floats: TypeAlias = npt.NDArray[np.float32]

# bfloat16 has a zero of this size within an eighth of a step.
_FARTHEST_ZERO = 32.0
# The eight bits of each byte, as 0 or 16, in the bytes of one number: a look-up is faster than shifting each bit out.
_FIFTH_BITS = ((np.arange(256)[:, None] >> np.arange(8) & 1) << 4).astype(np.uint8).view(np.uint64).reshape(-1)


def _half(blocks: Bytes, start: int) -> Floats:
    """Returns the float16 at byte `start` of each block, as float32 `[n, 1]`."""
    return np.ascontiguousarray(blocks[:, start : start + 2]).view(np.float16).astype(np.float32)


def _floats(values: npt.NDArray[Any]) -> Floats:
    return values.astype(np.float32)


def _nibbles(packed: Bytes) -> Bytes:
    """Splits bytes `[n, b]` into 4-bit values `[n, 2b]`: all low halves, then all high halves."""
    return np.concatenate((packed & 15, packed >> 4), axis=1)


def _fifth_bits(blocks: Bytes, start: int) -> Bytes:
    """Returns the 32 bits at byte `start` of each block, in order, as `[n, 32]` of 0 or 16."""
    return _FIFTH_BITS[blocks[:, start : start + 4]].view(np.uint8).reshape(-1, 32)


class Groups(NamedTuple):
    """Holds blocks whose elements are `scale q`, or `scale q + shift`, in groups of 32.

    Attributes:
        integers: `q`, int8 `[n, groups, 32]`.
        scales: float32 `[n, groups]`.
        shifts: float32 of this shape; `None`: nothing is added.
    """

    integers: npt.NDArray[np.int8]
    scales: Floats
    shifts: Floats | None = None

    def values(self) -> Floats:
        """Returns the elements, float32 `[n, groups * 32]`."""
        values = _floats(self.integers) * self.scales[..., None]
        if self.shifts is not None:
            values += self.shifts[..., None]
        return values.reshape(len(values), -1)


def _group(values: Bytes, middle: int = 0) -> npt.NDArray[np.int8]:
    groups: npt.NDArray[np.int8] = values.view(np.int8).reshape(len(values), -1, 32) - np.int8(middle)
    return groups


def _q4_0(blocks: Bytes) -> Groups:
    return Groups(_group(_nibbles(blocks[:, 2:]), 8), _half(blocks, 0))


def _q4_1(blocks: Bytes) -> Groups:
    return Groups(_group(_nibbles(blocks[:, 4:])), _half(blocks, 0), _half(blocks, 2))


def _q5_0(blocks: Bytes) -> Groups:
    return Groups(_group(_nibbles(blocks[:, 6:]) | _fifth_bits(blocks, 2), 16), _half(blocks, 0))


def _q5_1(blocks: Bytes) -> Groups:
    integers = _nibbles(blocks[:, 8:]) | _fifth_bits(blocks, 4)
    return Groups(_group(integers), _half(blocks, 0), _half(blocks, 2))


def _q8_0(blocks: Bytes) -> Groups:
    return Groups(_group(np.ascontiguousarray(blocks[:, 2:])), _half(blocks, 0))


def _scale_k(blocks: Bytes, values: Bytes) -> Groups:
    """Returns the groups of Q4_K and Q5_K, of whose elements the minimum is subtracted."""
    # Bytes 4 to 16 hold eight scales and eight minima of 6 bits.
    first, second, third = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = _floats(np.concatenate((first & 63, (third & 15) | ((first >> 6) << 4)), axis=1)) * _half(blocks, 0)
    minima = _floats(np.concatenate((second & 63, (third >> 4) | ((second >> 6) << 4)), axis=1)) * _half(blocks, 2)
    return Groups(values.view(np.int8), scales, -minima)


def _groups_of_nibbles(packed: Bytes) -> Bytes:
    """Splits 128 bytes into 4-bit values `[n, 8, 32]`: 32 bytes give a group of low and a group of high halves."""
    packed = packed.reshape(-1, 4, 1, 32)
    return np.concatenate((packed & 15, packed >> 4), axis=2).reshape(-1, 8, 32)


def _q4_k(blocks: Bytes) -> Groups:
    return _scale_k(blocks, _groups_of_nibbles(blocks[:, 16:]))


def _q5_k(blocks: Bytes) -> Groups:
    # Bit g of byte i is the fifth bit of element i of group g.
    high: Bytes = blocks[:, None, 16:48] >> np.arange(8, dtype=np.uint8).reshape(1, 8, 1)
    fifth: Bytes = (high & np.uint8(1)) << np.uint8(4)
    return _scale_k(blocks, _groups_of_nibbles(blocks[:, 48:]) | fifth)


def _q6_k(blocks: Bytes) -> Floats:
    # Two halves of 128 elements: 64 bytes of low nibbles and 32 bytes of high bit pairs each.
    low = blocks[:, 0:128].reshape(-1, 2, 1, 64)
    low = np.concatenate((low & 15, low >> 4), axis=2).reshape(-1, 2, 4, 32)
    high = (blocks[:, 128:192].reshape(-1, 2, 1, 32) >> np.array((0, 2, 4, 6), np.uint8).reshape(1, 1, 4, 1)) & 3
    values = _floats((low | (high << 4)).view(np.int8) - np.int8(32)).reshape(-1, 16, 16)
    scales = _floats(blocks[:, 192:208].view(np.int8)) * _half(blocks, 208)
    return (values * scales[..., None]).reshape(-1, 256)


def _by_gguf(kind: Type) -> Callable[[Bytes], HostArray]:
    """Returns the `gguf` package's decoder, for types that are rare."""

    def decode(blocks: Bytes) -> HostArray:
        from gguf.quants import dequantize

        return dequantize(blocks, kind)

    return decode


_GROUPED: dict[Type, Callable[[Bytes], Groups]] = {
    Type.Q4_0: _q4_0,
    Type.Q4_1: _q4_1,
    Type.Q5_0: _q5_0,
    Type.Q5_1: _q5_1,
    Type.Q8_0: _q8_0,
    Type.Q4_K: _q4_k,
    Type.Q5_K: _q5_k,
}
_DECODERS: dict[Type, Callable[[Bytes], HostArray]] = {
    Type.F32: lambda blocks: blocks.view(np.float32),
    Type.F16: lambda blocks: blocks.view(np.float16),
    Type.BF16: lambda blocks: blocks.view(numpy_dtype(DataType.BF16)),
    Type.Q6_K: _q6_k,
    # Older versions of the package do not know all of them.
    **{kind: _by_gguf(kind) for kind in Type if kind.name in ("Q2_K", "Q3_K", "IQ4_NL", "MXFP4")},
}
SUPPORTED_TYPES = (*_GROUPED, *_DECODERS)


def decode(blocks: Bytes, kind: Type) -> HostArray:
    """Decodes whole blocks to floats.

    Args:
        blocks: uint8 `[n, bytes of one block]`.
        kind: one of `SUPPORTED_TYPES`.

    Returns:
        `[n, elements of one block]`: float32 for quantised types, the stored type for the plain ones.
    """
    # Any bytes are a block, so scales may be infinite.
    with np.errstate(all="ignore"):
        return _GROUPED[kind](blocks).values() if kind in _GROUPED else _DECODERS[kind](blocks)


def integers(blocks: Bytes, kind: Type) -> tuple[str, HostArray, Floats, Floats] | None:
    """Reads whole blocks as integers in groups of 32, `scale (q - zero)`.

    Args:
        blocks: uint8 `[n, bytes of one block]`.
        kind: any type.

    Returns:
        The format, `INTEGERS4` or `INTEGERS8`, `q` int8 `[n, elements]`, scales and zeros float32 `[n, groups]`. `None`
        if the type has other groups, a scale is not finite, or an element is so far from zero beside its group's
        scale that a zero of 16 bits would round it.
    """
    if kind not in _GROUPED:
        return None
    narrow = kind in (Type.Q4_0, Type.Q4_1, Type.Q4_K)
    with np.errstate(all="ignore"):
        found, scales, shifts = _GROUPED[kind](blocks)
        if shifts is None:
            zeros = np.zeros_like(scales)
        else:
            # Unsigned integers become signed ones. A group of one value has no scale to divide by.
            middle = np.int8(8 if narrow else 16)
            one = scales == 0
            found = np.where(one[..., None], np.int8(0), found - middle)
            zeros = np.where(one, np.float32(-1), -shifts / scales - middle)
            scales = np.where(one, shifts, scales)
    if not (np.isfinite(scales).all() and (np.abs(zeros) <= _FARTHEST_ZERO).all()):
        return None
    return "INTEGERS4" if narrow else "INTEGERS8", found.reshape(len(blocks), -1), scales, zeros
