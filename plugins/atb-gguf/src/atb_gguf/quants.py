# SPDX-License-Identifier: Apache-2.0
"""Decodes GGUF's quantised blocks to floats; importing this module imports torch.

A block holds 32 or 256 consecutive elements of a row. Each function takes blocks `[n, bytes]` (uint8) and returns
`[n, elements]` (float32), rounding exactly where the reference decoder rounds, so results are equal bit for bit.
The `gguf` package's decoder in numpy is several times slower and would take most of the time of loading a model.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from gguf.constants import GGMLQuantizationType as Type


def _half(blocks: torch.Tensor, start: int) -> torch.Tensor:
    """Returns the float16 at byte `start` of each block, as float32 `[n, 1]`."""
    return blocks[:, start : start + 2].contiguous().view(torch.float16).float()


def _nibbles(packed: torch.Tensor) -> torch.Tensor:
    """Splits bytes `[n, b]` into 4-bit values `[n, 2b]`: all low halves, then all high halves."""
    return torch.cat((packed & 15, packed >> 4), dim=1)


def _fifth_bits(blocks: torch.Tensor, start: int) -> torch.Tensor:
    """Returns the 32 bits at byte `start` of each block, in order, as `[n, 32]` of 0 or 16."""
    # One look-up turns a byte into the eight bytes of its bits; shifting each bit out is three times slower.
    table = (torch.arange(256).view(-1, 1) >> torch.arange(8) & 1).to(torch.uint8) << 4
    indices = blocks[:, start : start + 4].reshape(-1).long()
    return table.view(torch.int64).view(-1).gather(0, indices).view(torch.uint8).view(-1, 32)


def _q4_0(blocks: torch.Tensor) -> torch.Tensor:
    return (_nibbles(blocks[:, 2:]).view(torch.int8) - 8).float().mul_(_half(blocks, 0))


def _q4_1(blocks: torch.Tensor) -> torch.Tensor:
    return _nibbles(blocks[:, 4:]).float().mul_(_half(blocks, 0)).add_(_half(blocks, 2))


def _q5_0(blocks: torch.Tensor) -> torch.Tensor:
    values = _nibbles(blocks[:, 6:]) | _fifth_bits(blocks, 2)
    return (values.view(torch.int8) - 16).float().mul_(_half(blocks, 0))


def _q5_1(blocks: torch.Tensor) -> torch.Tensor:
    values = _nibbles(blocks[:, 8:]) | _fifth_bits(blocks, 4)
    return values.float().mul_(_half(blocks, 0)).add_(_half(blocks, 2))


def _q8_0(blocks: torch.Tensor) -> torch.Tensor:
    return blocks[:, 2:].view(torch.int8).float().mul_(_half(blocks, 0))


def _scale_k(blocks: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Returns `values` `[n, 8, 32]` times the scale of their group minus its minimum, for Q4_K and Q5_K."""
    # Bytes 4 to 16 hold eight scales and eight minima of 6 bits.
    first, second, third = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = torch.cat((first & 63, (third & 15) | ((first >> 6) << 4)), dim=1).float().mul_(_half(blocks, 0))
    minima = torch.cat((second & 63, (third >> 4) | ((second >> 6) << 4)), dim=1).float().mul_(_half(blocks, 2))
    return values.float().mul_(scales.unsqueeze(-1)).sub_(minima.unsqueeze(-1)).reshape(-1, 256)


def _groups_of_nibbles(packed: torch.Tensor) -> torch.Tensor:
    """Splits 128 bytes into 4-bit values `[n, 8, 32]`: 32 bytes give a group of low and a group of high halves."""
    packed = packed.reshape(-1, 4, 1, 32)
    return torch.cat((packed & 15, packed >> 4), dim=2).reshape(-1, 8, 32)


def _q4_k(blocks: torch.Tensor) -> torch.Tensor:
    return _scale_k(blocks, _groups_of_nibbles(blocks[:, 16:]))


def _q5_k(blocks: torch.Tensor) -> torch.Tensor:
    # Bit g of byte i is the fifth bit of element i of group g.
    high = blocks[:, 16:48].unsqueeze(1) >> torch.arange(8, dtype=torch.uint8).view(1, 8, 1)
    return _scale_k(blocks, _groups_of_nibbles(blocks[:, 48:]) | ((high & 1) << 4))


def _q6_k(blocks: torch.Tensor) -> torch.Tensor:
    # Two halves of 128 elements: 64 bytes of low nibbles and 32 bytes of high bit pairs each.
    low = blocks[:, 0:128].reshape(-1, 2, 1, 64)
    low = torch.cat((low & 15, low >> 4), dim=2).reshape(-1, 2, 4, 32)
    shifts = torch.tensor((0, 2, 4, 6), dtype=torch.uint8).view(1, 1, 4, 1)
    high = (blocks[:, 128:192].reshape(-1, 2, 1, 32) >> shifts) & 3
    values = ((low | (high << 4)).view(torch.int8) - 32).float().view(-1, 16, 16)
    scales = blocks[:, 192:208].view(torch.int8).float().mul_(_half(blocks, 208))
    return values.mul_(scales.unsqueeze(-1)).view(-1, 256)


def _by_gguf(kind: Type) -> Callable[[torch.Tensor], torch.Tensor]:
    """Returns the `gguf` package's decoder, for types that are rare."""

    def decode(blocks: torch.Tensor) -> torch.Tensor:
        from gguf.quants import dequantize

        return torch.from_numpy(dequantize(blocks.numpy(), kind))

    return decode


_DECODERS: dict[Type, Callable[[torch.Tensor], torch.Tensor]] = {
    Type.F32: lambda blocks: blocks.view(torch.float32),
    Type.F16: lambda blocks: blocks.view(torch.float16),
    Type.BF16: lambda blocks: blocks.view(torch.bfloat16),
    Type.Q4_0: _q4_0,
    Type.Q4_1: _q4_1,
    Type.Q5_0: _q5_0,
    Type.Q5_1: _q5_1,
    Type.Q8_0: _q8_0,
    Type.Q4_K: _q4_k,
    Type.Q5_K: _q5_k,
    Type.Q6_K: _q6_k,
    # Older versions of the package do not know all of them.
    **{kind: _by_gguf(kind) for kind in Type if kind.name in ("Q2_K", "Q3_K", "IQ4_NL", "MXFP4")},
}
SUPPORTED_TYPES = tuple(_DECODERS)


def decode(blocks: torch.Tensor, kind: Type) -> torch.Tensor:
    """Decodes whole blocks to floats.

    Args:
        blocks: uint8 `[n, bytes of one block]`.
        kind: one of `SUPPORTED_TYPES`.

    Returns:
        `[n, elements of one block]`: float32 for quantised types, the stored type for the plain ones.
    """
    return _DECODERS[kind](blocks)
