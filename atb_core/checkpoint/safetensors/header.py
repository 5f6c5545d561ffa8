# SPDX-License-Identifier: Apache-2.0
"""Reads the header of a safetensors file, an untrusted input.

A file is: the header's length (8 bytes, little endian), the header (JSON), the data. Everything is checked here,
before any tensor is allocated; reading a tensor afterwards only needs its range.
"""

from __future__ import annotations

from typing import Any, NoReturn

from atb_core.checkpoint.files import CheckedFile, StoredTensor
from atb_core.checkpoint.json_files import parse_table
from atb_core.errors import WeightsError

_MAX_HEADER_BYTES = 100_000_000
_MAX_RANK = 32

# Bits per element of every element type the format defines.
DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


def read_safetensors_header(file: CheckedFile) -> dict[str, StoredTensor[str]]:
    """Reads and checks the header of `file`; returns the tensors in the order of their data.

    Raises:
        WeightsError: the header is damaged; the message names the tensor.
    """
    return _HeaderReader(file).read()


class _HeaderReader:
    def __init__(self, file: CheckedFile) -> None:
        self.file = file

    def fail(self, cause: str) -> NoReturn:
        raise WeightsError(
            f"{self.file.path} is not a valid safetensors file: {cause}",
            "The file is damaged, incomplete or made to mislead; fetch it again from a source you trust.",
        )

    def read(self) -> dict[str, StoredTensor[str]]:
        self.file.refuse_pointer()
        if self.file.size < 8:
            self.fail(f"{self.file.size} bytes are too few for the 8-byte header length")
        length = int.from_bytes(self.file.read(0, 8, "the header length"), "little")
        if length > _MAX_HEADER_BYTES:
            self.fail(f"the header claims {length} bytes, the limit is {_MAX_HEADER_BYTES}")
        if 8 + length > self.file.size:
            self.fail(f"the header claims {length} bytes but the file ends after {self.file.size - 8}")
        table = self._parse(bytes(self.file.read(8, length, "the header")))
        metadata = table.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
            self.fail("__metadata__ is not a table of strings")
        tensors = {name: self._entry(name, info, 8 + length) for name, info in table.items()}
        return self._check_layout(tensors, 8 + length)

    def _parse(self, raw: bytes) -> dict[str, Any]:
        if not raw.startswith(b"{"):
            self.fail("the header does not start with '{'")
        try:
            return parse_table(raw)
        except (ValueError, RecursionError) as error:
            self.fail(f"the header is not JSON as the format has it: {error}")

    def _entry(self, name: str, info: object, data_start: int) -> StoredTensor[str]:
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
        return StoredTensor(dtype, tuple(shape), data_start + begin, end - begin)

    @staticmethod
    def _counts(value: object) -> bool:
        # bool is an int to Python but not a size; the upper bound is the format's unsigned 64 bits.
        return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 64 for item in value)

    def _check_layout(self, tensors: dict[str, StoredTensor[str]], data_start: int) -> dict[str, StoredTensor[str]]:
        """Checks that the tensors fill the data exactly, without gaps or overlaps; returns them in its order."""
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
