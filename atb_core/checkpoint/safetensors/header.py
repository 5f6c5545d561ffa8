# SPDX-License-Identifier: Apache-2.0
"""Reads the header of a safetensors file, an untrusted input.

A file is: the header's length (8 bytes, little endian), the header (JSON), the data. Everything is checked here,
before any tensor is allocated; reading a tensor afterwards only needs its range.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import NoReturn

from atb_core.checkpoint.files import CheckedFile
from atb_core.errors import WeightsError

MAX_HEADER_BYTES = 100_000_000
# The format has no deeper structure than {name: {"shape": [..]}}; the bound also keeps the JSON parser off its stack.
_MAX_DEPTH = 3
_MAX_RANK = 32

# Bits per element of every element type the format defines.
DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


@dataclass(frozen=True)
class TensorEntry:
    """Locates one tensor: `nbytes` bytes at `offset` from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


@dataclass(frozen=True)
class SafetensorsHeader:
    """Holds tensors in the order of their data, and the free-form metadata."""

    tensors: dict[str, TensorEntry]
    metadata: dict[str, str]


def read_safetensors_header(file: CheckedFile) -> SafetensorsHeader:
    """Reads and checks the header of `file`; `WeightsError` says what is wrong with which tensor."""
    return _HeaderReader(file).read()


class _HeaderReader:
    def __init__(self, file: CheckedFile) -> None:
        self.file = file

    def fail(self, cause: str) -> NoReturn:
        raise WeightsError(
            f"{self.file.path} is not a valid safetensors file: {cause}",
            "The file is damaged, incomplete or made to mislead; fetch it again from a source you trust.",
        )

    def read(self) -> SafetensorsHeader:
        self.file.refuse_pointer()
        if self.file.size < 8:
            self.fail(f"{self.file.size} bytes are too few for the 8-byte header length")
        length = int.from_bytes(self.file.read(0, 8, "the header length"), "little")
        if length > MAX_HEADER_BYTES:
            self.fail(f"the header claims {length} bytes, the limit is {MAX_HEADER_BYTES}")
        if 8 + length > self.file.size:
            self.fail(f"the header claims {length} bytes but the file ends after {self.file.size - 8}")
        table = self._parse(bytes(self.file.read(8, length, "the header")))
        metadata = self._metadata(table.pop("__metadata__", {}))
        tensors = {name: self._entry(name, info, 8 + length) for name, info in table.items()}
        return SafetensorsHeader(self._check_layout(tensors, 8 + length), metadata)

    def _parse(self, raw: bytes) -> dict[str, object]:
        if not raw.startswith(b"{"):
            self.fail("the header does not start with '{'")
        self._check_depth(raw)
        try:
            table = json.loads(raw.decode("utf-8"), object_pairs_hook=self._unique, parse_constant=self._constant)
        except UnicodeDecodeError as error:
            self.fail(f"the header is not UTF-8 at byte {error.start}")
        except (ValueError, RecursionError) as error:
            self.fail(f"the header is not JSON: {error}")
        if not isinstance(table, dict):
            self.fail("the header is not a JSON object")
        return table

    def _check_depth(self, raw: bytes) -> None:
        """Bounds nesting before the JSON parser recurses. Brackets inside strings do not count."""
        depth, in_string, escaped = 0, False, False
        # Structural bytes are rare next to names and digits, so skip everything else at C speed.
        for byte in raw.translate(None, _NOT_STRUCTURAL):
            if in_string:
                if escaped:
                    escaped = False
                elif byte == _BACKSLASH:
                    escaped = True
                elif byte == _QUOTE:
                    in_string = False
            elif byte == _QUOTE:
                in_string = True
            elif byte in b"{[":
                depth += 1
                if depth > _MAX_DEPTH:
                    self.fail(f"the header nests deeper than {_MAX_DEPTH} levels")
            elif byte in b"}]":
                depth -= 1

    def _unique(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        table = dict(pairs)
        if len(table) != len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            self.fail(f"the header has the key {twice[:200]!r} twice")
        return table

    def _constant(self, text: str) -> NoReturn:
        self.fail(f"the header contains {text}")

    def _metadata(self, value: object) -> dict[str, str]:
        if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
            self.fail("__metadata__ is not a table of strings")
        return value

    def _entry(self, name: str, info: object, data_start: int) -> TensorEntry:
        label = f"tensor {name[:200]!r}"
        if not isinstance(info, dict) or set(info) != {"dtype", "shape", "data_offsets"}:
            self.fail(f"{label} is not described by exactly dtype, shape and data_offsets")
        dtype, shape, offsets = info["dtype"], info["shape"], info["data_offsets"]
        if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
            self.fail(f"{label} has the unknown element type {str(dtype)[:40]!r}")
        if not self._counts(shape) or len(shape) > _MAX_RANK:
            self.fail(f"{label} has a shape that is not a list of at most {_MAX_RANK} sizes")
        if not self._counts(offsets) or len(offsets) != 2:
            self.fail(f"{label} has data_offsets that are not two positions")
        begin, end = offsets
        elements = 1
        for size in shape:
            # The running product is capped, and a zero elsewhere in the shape does not hide an absurd size.
            elements *= max(size, 1)
            if elements > 1 << 62:
                self.fail(f"{label} has the absurd shape {shape}")
        bits = DTYPE_BITS[dtype] * (0 if 0 in shape else elements)
        if begin > end or (end - begin) * 8 != bits:
            self.fail(f"{label}, {dtype} of shape {shape}, does not fit its data range {begin}..{end}")
        return TensorEntry(dtype, tuple(shape), data_start + begin, end - begin)

    @staticmethod
    def _counts(value: object) -> bool:
        # bool is an int to Python but not a size; the upper bound is the format's unsigned 64 bits.
        return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 64 for item in value)

    def _check_layout(self, tensors: dict[str, TensorEntry], data_start: int) -> dict[str, TensorEntry]:
        """Checks that the tensors fill the data exactly: contiguous, nothing hidden between, before or after."""
        # An empty tensor shares its position with the next one, so it sorts first.
        ordered = sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].nbytes))
        position = data_start
        for name, entry in ordered:
            if entry.offset != position:
                kind = "overlaps the one before it" if entry.offset < position else "leaves unused bytes before it"
                self.fail(f"the data of tensor {name[:200]!r} {kind}")
            position += entry.nbytes
            if position > self.file.size:
                self.fail(
                    f"tensor {name[:200]!r} ends at byte {position} but the file has {self.file.size}: it is truncated"
                )
        if position != self.file.size:
            self.fail(f"{self.file.size - position} bytes follow the last tensor")
        return dict(ordered)


_QUOTE, _BACKSLASH = ord('"'), ord("\\")
# An escaped character may itself be uninteresting ("\n"), so deleting it would let the backslash swallow the closing
# quote. Keeping every character that JSON allows after a backslash avoids that.
_NOT_STRUCTURAL = bytes(byte for byte in range(256) if byte not in b'{}[]"\\/bfnrtu')
