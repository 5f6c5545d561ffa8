# SPDX-License-Identifier: Apache-2.0
"""Reads the header of a GGUF file, an untrusted input: typed metadata and the table of tensors.

The `gguf` package's reader keeps a numpy view of every string, which takes seconds for a large vocabulary, and
trusts every length in the file. This one reads the structure in one pass, checks each count, length and offset
against the file before use, and bounds the total. The package supplies the format's tables.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NoReturn

from gguf.constants import GGML_QUANT_SIZES, GGUF_DEFAULT_ALIGNMENT, GGMLQuantizationType, GGUFValueType

from atb_core.checkpoint.files import CheckedFile, StoredTensor
from atb_core.errors import WeightsError

# The largest vocabularies in use have 260k tokens and 500k merges, some 15 MB; the limits leave ample room.
_MAX_HEADER_BYTES = 256 << 20
_MAX_STRING_BYTES = 16 << 20
_MAX_NAME_BYTES = 1 << 10
_MAX_ARRAY_ITEMS = 4_000_000
_MAX_ENTRIES = 1 << 16
_MAX_RANK = 4
_MAX_ALIGNMENT = 1 << 20
_VERSIONS = (2, 3)
_SKIPPED = object()

_SCALARS = {
    GGUFValueType.UINT8: "B",
    GGUFValueType.INT8: "b",
    GGUFValueType.UINT16: "H",
    GGUFValueType.INT16: "h",
    GGUFValueType.UINT32: "I",
    GGUFValueType.INT32: "i",
    GGUFValueType.FLOAT32: "f",
    GGUFValueType.BOOL: "?",
    GGUFValueType.UINT64: "Q",
    GGUFValueType.INT64: "q",
    GGUFValueType.FLOAT64: "d",
}


GgufTensor = StoredTensor[GGMLQuantizationType]


@dataclass(frozen=True)
class GgufHeader:
    """Holds metadata values as Python scalars, strings or lists of these; tensors in the order of the table."""

    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]


def read_header(file: CheckedFile, texts: bool) -> GgufHeader:
    """Reads the header of an open file; without `texts`, skips lists of strings (the vocabulary).

    Skipping takes half the time, and keeps the hundreds of thousands of strings out of memory.

    Raises:
        WeightsError: the header is damaged.
    """
    return _HeaderReader(file, texts).read()


class _HeaderReader:
    """Moves a cursor over the start of the file. `what` names in messages what a step reads."""

    def __init__(self, file: CheckedFile, texts: bool) -> None:
        self.file = file
        self.texts = texts
        self.limit = min(file.size, _MAX_HEADER_BYTES)
        self.data = bytearray()
        self.position = 0

    def fail(self, cause: str) -> NoReturn:
        raise WeightsError(
            f"{self.file.path} is not a valid GGUF file: {cause}", "The file is damaged or incomplete; fetch it again."
        )

    def read(self) -> GgufHeader:
        self.file.refuse_pointer()
        magic = bytes(self.take(4, "the magic number"))
        if magic != b"GGUF":
            self.fail(f"it starts with {magic!r} instead of b'GGUF'")
        version = self.scalar("I", "the version")
        if version not in _VERSIONS:
            if version & 0xFFFF == 0:
                self.fail("it is stored big-endian, which is not supported")
            self.fail(f"it has version {version}, supported are {' and '.join(map(str, _VERSIONS))}")
        tensor_count = self.count("the tensor count")
        entry_count = self.count("the metadata count")
        metadata: dict[str, Any] = {}
        for index in range(entry_count):
            key = self.string(f"metadata key {index}", _MAX_NAME_BYTES)
            if key in metadata:
                self.fail(f"the metadata key {key!r} appears twice")
            metadata[key] = self.value(f"metadata {key!r}")
        tensors: dict[str, GgufTensor] = {}
        for index in range(tensor_count):
            name = self.string(f"tensor name {index}", _MAX_NAME_BYTES)
            if name in tensors:
                self.fail(f"the tensor {name!r} appears twice")
            tensors[name] = self.tensor(name)
        metadata = {key: value for key, value in metadata.items() if value is not _SKIPPED}
        return GgufHeader(metadata, self.place(tensors, metadata.get("general.alignment", GGUF_DEFAULT_ALIGNMENT)))

    def need(self, length: int, what: str) -> None:
        """Makes `length` bytes at the cursor available, or fails."""
        end = self.position + length
        if end > self.limit:
            if self.limit < self.file.size:
                self.fail(f"{what} lies beyond the first {_MAX_HEADER_BYTES >> 20} MiB")
            self.fail(f"it ends inside {what} ({length} bytes wanted, {self.limit - self.position} left)")
        loaded = len(self.data)
        if end > loaded:
            # Growing by half keeps the work linear however the reads are cut.
            target = min(self.limit, max(end, loaded + loaded // 2, 1 << 20))
            self.data += self.file.read(loaded, target - loaded, what)

    def take(self, length: int, what: str) -> bytearray:
        self.need(length, what)
        start, self.position = self.position, self.position + length
        return self.data[start : self.position]

    def scalar(self, code: str, what: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code), what))[0]

    def count(self, what: str) -> int:
        count: int = self.scalar("Q", what)
        if count > _MAX_ENTRIES:
            self.fail(f"{what} is {count}, the limit is {_MAX_ENTRIES}")
        return count

    def string(self, what: str, limit: int = _MAX_STRING_BYTES) -> str:
        length = self.scalar("Q", what)
        if length > limit:
            self.fail(f"{what} claims {length} bytes, the limit is {limit}")
        try:
            return self.take(length, what).decode("utf-8")
        except UnicodeDecodeError:
            self.fail(f"{what} is not UTF-8")

    def value_type(self, what: str) -> GGUFValueType:
        code = self.scalar("I", what)
        try:
            return GGUFValueType(code)
        except ValueError:
            self.fail(f"{what} has the unknown type {code}")

    def value(self, what: str) -> Any:
        kind = self.value_type(what)
        if kind == GGUFValueType.STRING:
            return self.string(what)
        if kind != GGUFValueType.ARRAY:
            return self.scalar(_SCALARS[kind], what)
        kind = self.value_type(what)
        length = self.scalar("Q", what)
        if length > _MAX_ARRAY_ITEMS:
            self.fail(f"{what} claims {length} items, the limit is {_MAX_ARRAY_ITEMS}")
        if kind == GGUFValueType.ARRAY:
            self.fail(f"{what} is an array of arrays")
        if kind == GGUFValueType.STRING:
            texts = self.strings(length, what)
            return texts if self.texts else _SKIPPED
        code = _SCALARS[kind]
        raw = self.take(length * struct.calcsize("<" + code), what)
        return list(struct.unpack(f"<{length}{code}", raw))

    def strings(self, length: int, what: str) -> list[str]:
        """Reads hundreds of thousands of short strings: the hot loop of opening a file."""
        self.need(8 * length, what)
        unpack: Callable[..., tuple[int]] = struct.Struct("<Q").unpack_from
        data, loaded, position, texts = self.data, len(self.data), self.position, list[str]()
        try:
            for _ in range(length):
                start = position + 8
                if start > loaded:
                    loaded = self.load(position, 8, what)
                size = unpack(data, position)[0]
                if start + size > loaded:
                    if size > _MAX_STRING_BYTES:
                        self.fail(f"{what} has an item of {size} bytes, the limit is {_MAX_STRING_BYTES}")
                    loaded = self.load(position, 8 + size, what)
                position = start + size
                if self.texts:
                    texts.append(data[start:position].decode())
        except UnicodeDecodeError:
            self.fail(f"item {len(texts)} of {what} is not UTF-8")
        self.position = position
        return texts

    def load(self, position: int, length: int, what: str) -> int:
        """Moves the cursor and makes `length` bytes there available; returns where those that are end."""
        self.position = position
        self.need(length, what)
        return len(self.data)

    def tensor(self, name: str) -> GgufTensor:
        """Reads an entry of the table; its offset counts from the end of the header."""
        what = f"the description of tensor {name!r}"
        rank = self.scalar("I", what)
        if not 1 <= rank <= _MAX_RANK:
            self.fail(f"tensor {name!r} has {rank} dimensions, supported are 1 to {_MAX_RANK}")
        sizes = struct.unpack(f"<{rank}Q", self.take(8 * rank, what))
        if 0 in sizes:
            self.fail(f"tensor {name!r} has the empty shape {list(sizes)}")
        code = self.scalar("I", what)
        try:
            kind = GGMLQuantizationType(code)
        except ValueError:
            raise WeightsError(
                f"tensor {name!r} in {self.file.path} has the unknown GGUF type {code}",
                "The file may be newer than this release; use one quantised as Q4_K_M, Q8_0, F16 or BF16.",
            ) from None
        block, size = GGML_QUANT_SIZES[kind]
        # The file stores the innermost dimension first.
        if sizes[0] % block:
            self.fail(f"rows of tensor {name!r} have {sizes[0]} elements, not a multiple of {kind.name}'s {block}")
        return GgufTensor(kind, sizes[::-1], self.scalar("Q", what), math.prod(sizes) // block * size)

    def place(self, tensors: dict[str, GgufTensor], alignment: object) -> dict[str, GgufTensor]:
        """Returns the tensors with offsets in the file; they must be aligned, inside it, and not overlap."""
        if type(alignment) is not int or not 1 <= alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
            self.fail(f"general.alignment is {str(alignment)[:40]}, not a power of two up to {_MAX_ALIGNMENT}")
        start = -(-self.position // alignment) * alignment
        placed = {name: replace(tensor, offset=start + tensor.offset) for name, tensor in tensors.items()}
        for name, tensor in placed.items():
            if tensor.offset % alignment:
                offset = tensor.offset - start
                self.fail(f"tensor {name!r} lies at offset {offset}, not a multiple of the alignment {alignment}")
            if tensor.offset + tensor.nbytes > self.file.size:
                self.fail(
                    f"tensor {name!r} ({tensor.type.name}, shape {list(tensor.shape)}) ends at byte "
                    f"{tensor.offset + tensor.nbytes} but the file has {self.file.size}: it is truncated"
                )
        ordered = sorted(placed.items(), key=lambda item: item[1].offset)
        for (before, first), (after, second) in pairwise(ordered):
            if first.offset + first.nbytes > second.offset:
                self.fail(f"the data of tensors {before!r} and {after!r} overlap")
        return placed
