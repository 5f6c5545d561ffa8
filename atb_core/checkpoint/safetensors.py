# SPDX-License-Identifier: Apache-2.0
"""Reads the tensors of safetensors, untrusted files: one, or shards with an index.

A file is: the header's length (8 bytes, little endian), the header (JSON), the data. Everything is checked when it is
opened, before any tensor is allocated; reading a tensor afterwards only needs its range.
"""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from atb_core.checkpoint.files import CheckedFile, StoredTensor, TableLoader, memory_of
from atb_core.errors import WeightsError
from atb_core.files import parse_json, read_json
from atb_core.graph.arrays import HostArray, dtype_of, numpy_dtype
from atb_core.graph.dtype import DataType

__all__ = ["SafetensorsLoader"]

_log = logging.getLogger(__name__)

_DAMAGED = "The file is damaged, incomplete or made to mislead; fetch it again from a source you trust."
_INDEX_SUFFIX = ".safetensors.index.json"
_INDEX_FILE = f"model{_INDEX_SUFFIX}"
_SHARD = re.compile(r"[^/\\\0]+\.safetensors")
# The most that Linux takes.
_MAX_NAME_BYTES = 255
_MAX_INDEX_BYTES = 100_000_000
_MAX_HEADER_BYTES = 100_000_000
_MAX_RANK = 32
# Rows of an inner-dimension slice are read whole and cut; this bounds what is read ahead of the cut.
_CHUNK_BYTES = 8 << 20

# Bits per element of every element type the format defines.
DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
_READABLE = {
    "F32": DataType.FLOAT, "F16": DataType.FLOAT16, "BF16": DataType.BF16, "I8": DataType.INT8, "I32": DataType.INT32,
    "I64": DataType.INT64, "BOOL": DataType.BOOL,
}  # fmt: skip


class SafetensorsLoader(TableLoader[str]):
    """Reads one safetensors file or several that share no tensor name.

    Args:
        source: the file or the index, for messages.
        paths: the files.
        weight_map: the index, tensor to file name; the files must have what it names.
    """

    def __init__(self, source: Path, paths: Sequence[Path], weight_map: Mapping[str, str] | None = None) -> None:
        self._files: list[CheckedFile] = []
        self._file_of: dict[str, CheckedFile] = {}
        self._unlisted: frozenset[str] = frozenset()
        tensors: dict[str, StoredTensor[str]] = {}
        super().__init__(source, tensors)
        try:
            for path in paths:
                file = CheckedFile(path)
                self._files.append(file)
                for name, tensor in _HeaderReader(file).read().items():
                    if name in tensors:
                        raise WeightsError(f"tensor {name!r} is both in {self._file_of[name].path} and in {path}")
                    tensors[name], self._file_of[name] = tensor, file
            if weight_map is not None:
                self._check_index(weight_map)
        except BaseException:
            self.close()
            raise

    def _check_index(self, weight_map: Mapping[str, str]) -> None:
        stored = {name: file.path.name for name, file in self._file_of.items()}
        differing = [name for name, shard in weight_map.items() if shard != stored.get(name)]
        if differing:
            name, more = differing[0], f" ({len(differing)} tensors differ)" if len(differing) > 1 else ""
            raise WeightsError(
                f"{self.path} lists tensor {name!r} in {weight_map[name]}, but it is in "
                f"{stored.get(name, 'none')}{more}",
                "The checkpoint is incomplete or mixed from several; fetch the directory again.",
            )
        self._unlisted = frozenset(stored.keys() - weight_map.keys())

    def unlisted(self) -> frozenset[str]:
        return self._unlisted

    def dtype(self, name: str) -> DataType:
        stored = self.locate(name).type
        if stored not in _READABLE:
            raise WeightsError(
                f"tensor {name!r} in {self._file_of[name].path} has element type {stored}, which is not "
                f"supported (supported: {', '.join(_READABLE)})",
                "Use a checkpoint in bfloat16, float16 or float32.",
            )
        return _READABLE[stored]

    def get(self, name: str) -> HostArray:
        out = np.empty(self.shape(name), numpy_dtype(self.dtype(name)))
        self.read_into(name, out)
        return out

    def stored_types(self) -> Counter[str]:
        """Returns the number of tensors in each element type, under the project's names or the format's."""
        types = (tensor.type for tensor in self.tensors.values())
        return Counter(_READABLE[each].short if each in _READABLE else each for each in types)

    def read_bytes(self, name: str) -> HostArray:
        """Reads a tensor's elements as they are stored, uint8 `[nbytes]`; its type is `locate(name).type`."""
        tensor, out = self.locate(name), np.empty(self.nbytes(name), np.uint8)
        self._file_of[name].read_into(tensor.offset, memory_of(out), f"tensor {name!r}")
        return out

    def read_into(self, name: str, out: HostArray) -> None:
        if dtype_of(out) is self.dtype(name) and out.shape == self.shape(name) and out.flags.carray:
            self._file_of[name].read_into(self.locate(name).offset, memory_of(out), f"tensor {name!r}")
        else:
            super().read_into(name, out)

    def read_slice(self, name: str, dim: int, start: int, stop: int) -> HostArray:
        """Reads rows straight into their memory, and cuts inner dimensions from chunks of rows."""
        dtype, tensor, file = self.dtype(name), self.locate(name), self._file_of[name]
        inner = math.prod(tensor.shape[dim + 1 :]) * dtype.itemsize
        outer = math.prod(tensor.shape[:dim])
        shape = (*tensor.shape[:dim], stop - start, *tensor.shape[dim + 1 :])
        out = np.empty(shape, numpy_dtype(dtype))
        if outer == 1:
            file.read_into(tensor.offset + start * inner, memory_of(out), f"tensor {name!r}")
        elif out.size:
            row_bytes = tensor.shape[dim] * inner
            # The view has one row per outer index, in bytes, so one loop serves every rank and element type.
            rows = out.reshape(outer, -1).view(np.uint8)
            buffer = np.empty((min(max(1, _CHUNK_BYTES // row_bytes), outer), row_bytes), np.uint8)
            for first in range(0, outer, len(buffer)):
                chunk = buffer[: outer - first]
                file.read_into(tensor.offset + first * row_bytes, memory_of(chunk), f"tensor {name!r}")
                rows[first : first + len(chunk)] = chunk[:, start * inner : stop * inner]
        return out

    def identity(self) -> list[list[int]]:
        return [file.identity() for file in self._files]

    def close(self) -> None:
        for file in self._files:
            file.close()


def open_safetensors(path: Path) -> SafetensorsLoader:
    """Opens a .safetensors file, or the weights of a directory; a shard stands for all that its index names.

    In a directory those are `model.safetensors`, or `model.safetensors.index.json` with its shards, or the only
    .safetensors file. Where it has both, the first is taken, as transformers does, and a warning names the other.

    Raises:
        WeightsError: the files are damaged, incomplete or of another kind.
    """
    if not path.is_dir():
        index = path.with_name(_INDEX_FILE)
        if not index.exists() or path.name not in _read_index(index).values():
            return SafetensorsLoader(path, [path])
        path = path.parent
    index, single = path / _INDEX_FILE, path / "model.safetensors"
    if not index.exists() and len(others := list(path.glob(f"*{_INDEX_SUFFIX}"))) == 1:
        index = others[0]  # such as quant_model_weights.safetensors.index.json
    weight_map = _read_index(index) if index.exists() else {}
    if weight_map and (not single.exists() or single.name in weight_map.values()):
        shards = [path / name for name in sorted(set(weight_map.values()))]
        if missing := [shard.name for shard in shards if not shard.exists()]:
            raise WeightsError(
                f"{index} names {', '.join(missing[:4])}, of {len(missing)} missing shards",
                "The checkpoint is incomplete; fetch the directory again.",
            )
        return SafetensorsLoader(index, shards, weight_map)
    if weight_map:
        _log.warning("%s holds its weights twice: %s is read, the shards of %s are not", path, single.name, index.name)
    files = [single] if single.exists() else sorted(path.glob("*.safetensors"))
    if len(files) == 1:
        return SafetensorsLoader(files[0], files)
    raise _nothing_to_open(path, files)


def _nothing_to_open(directory: Path, files: Sequence[Path]) -> WeightsError:
    if files:
        names = ", ".join(path.name for path in files[:4])
        return WeightsError(
            f"{directory} has {len(files)} safetensors files ({names}, ...) but no {_INDEX_FILE}",
            "Fetch the index too; without it a missing shard could not be noticed.",
        )
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in directory.glob(pattern))
    if pickles:
        return WeightsError(
            f"{directory} holds its weights as pickle files ({', '.join(pickles[:3])}), which can run code when "
            "they are loaded and are never opened here",
            "Convert them to safetensors first, for example with transformers: "
            "AutoModelForCausalLM.from_pretrained(dir).save_pretrained(new_dir).",
        )
    return WeightsError(f"{directory} contains no .safetensors file", "Check the path, or fetch the model again.")


def _read_index(index: Path) -> dict[str, str]:
    weight_map = (read_json(index, WeightsError, _MAX_INDEX_BYTES) or {}).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightsError(f"{index} is not a valid shard index: it has no weight_map", "Fetch the directory again.")
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or not _SHARD.fullmatch(shard) or len(shard.encode()) > _MAX_NAME_BYTES:
            raise WeightsError(
                f"{index} is not a valid shard index: tensor {name[:200]!r} is said to be in {str(shard)[:200]!r}, "
                "not a .safetensors file beside it"
            )
    return weight_map


class _HeaderReader:
    def __init__(self, file: CheckedFile) -> None:
        self.file = file

    def fail(self, cause: str, hint: str = _DAMAGED) -> NoReturn:
        raise WeightsError(f"{self.file.path} is not a valid safetensors file: {cause}", hint)

    def read(self) -> dict[str, StoredTensor[str]]:
        """Returns the tensors in the order of their data; raises `WeightsError` naming what is damaged."""
        self.file.refuse_pointer()
        length = int.from_bytes(self.file.read(0, 8, "the header length"), "little")
        if length > _MAX_HEADER_BYTES:
            self.fail(f"the header claims {length} bytes, the limit is {_MAX_HEADER_BYTES}")
        raw = self.file.read(8, length, "the header")
        if not raw.startswith(b"{"):
            self.fail("the header does not start with '{'")
        try:
            table = parse_json(raw)
        except ValueError as error:
            self.fail(f"the header is not JSON as the format has it: {error}")
        metadata = table.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
            self.fail("__metadata__ is not a table of strings")
        tensors = {name: self._entry(name, info, 8 + length) for name, info in table.items()}
        return self._check_layout(tensors, 8 + length)

    def _entry(self, name: str, info: object, data_start: int) -> StoredTensor[str]:
        label = f"tensor {name[:200]!r}"
        if not isinstance(info, dict) or set(info) != {"dtype", "shape", "data_offsets"}:
            self.fail(f"{label} is not described by exactly dtype, shape and data_offsets")
        dtype, shape, offsets = info["dtype"], info["shape"], info["data_offsets"]
        if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
            hint = "The file is damaged, or newer than this version of atb-core; use one in bfloat16 or float16."
            self.fail(f"{label} has the unknown element type {str(dtype)[:40]!r}", hint)
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
            self.fail(f"its tensors end at byte {position} but the file has {self.file.size}: it is truncated")
        if position < self.file.size:
            self.fail(f"{self.file.size - position} bytes follow the last tensor")
        return dict(ordered)
