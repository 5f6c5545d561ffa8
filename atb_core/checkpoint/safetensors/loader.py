# SPDX-License-Identifier: Apache-2.0
"""Reads the tensors of safetensors: one file, or shards with an index."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from atb_core.checkpoint.files import CheckedFile, StoredTensor
from atb_core.checkpoint.json_files import parse_table
from atb_core.checkpoint.reading import TableLoader, memory_of
from atb_core.checkpoint.safetensors.header import read_safetensors_header
from atb_core.errors import WeightsError
from atb_core.graph.dtype import DataType
from atb_core.graph.torch_dtypes import dtype_to_torch

_INDEX_FILE = "model.safetensors.index.json"
_MAX_INDEX_BYTES = 100_000_000
# Rows of an inner-dimension slice are read whole and cut; this bounds what is read ahead of the cut.
_CHUNK_BYTES = 8 << 20

_READABLE = {
    "F32": DataType.FLOAT,
    "F16": DataType.FLOAT16,
    "BF16": DataType.BF16,
    "I8": DataType.INT8,
    "I32": DataType.INT32,
    "I64": DataType.INT64,
    "BOOL": DataType.BOOL,
}


class SafetensorsLoader(TableLoader[str]):
    """Reads one safetensors file or several that share no tensor name.

    Args:
        source: the file or the index, for messages.
        paths: the files.
        weight_map: the index, tensor to file name; it must agree with the files exactly.
    """

    def __init__(self, source: Path, paths: Sequence[Path], weight_map: Mapping[str, str] | None = None) -> None:
        self._files: list[CheckedFile] = []
        self._file_of: dict[str, CheckedFile] = {}
        tensors: dict[str, StoredTensor[str]] = {}
        super().__init__(source, tensors)
        try:
            for path in paths:
                file = CheckedFile(path)
                self._files.append(file)
                for name, tensor in read_safetensors_header(file).items():
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
        differing = [name for name in {**weight_map, **stored} if weight_map.get(name) != stored.get(name)]
        if differing:
            name, more = differing[0], f" ({len(differing)} tensors differ)" if len(differing) > 1 else ""
            raise WeightsError(
                f"{self.path} lists tensor {name!r} in {weight_map.get(name, 'no shard')}, but it is in "
                f"{stored.get(name, 'none')}{more}",
                "The checkpoint is incomplete or mixed from several; fetch the directory again.",
            )

    def dtype(self, name: str) -> DataType:
        stored = self.locate(name).type
        if stored not in _READABLE:
            raise WeightsError(
                f"tensor {name!r} in {self._file_of[name].path} has element type {stored}, which is not "
                f"supported (supported: {', '.join(_READABLE)})",
                "Use a checkpoint in bfloat16, float16 or float32.",
            )
        return _READABLE[stored]

    def get(self, name: str) -> torch.Tensor:
        out = torch.empty(self.shape(name), dtype=dtype_to_torch(self.dtype(name)))
        self._file_of[name].read_into(self.locate(name).offset, memory_of(out), f"tensor {name!r}")
        return out

    def read_slice(self, name: str, dim: int, start: int, stop: int) -> torch.Tensor:
        """Reads rows straight into their memory, and cuts inner dimensions from chunks of rows."""
        dtype, tensor, file = self.dtype(name), self.locate(name), self._file_of[name]
        inner = math.prod(tensor.shape[dim + 1 :]) * dtype.itemsize
        outer = math.prod(tensor.shape[:dim])
        shape = (*tensor.shape[:dim], stop - start, *tensor.shape[dim + 1 :])
        out = torch.empty(shape, dtype=dtype_to_torch(dtype))
        if outer == 1:
            file.read_into(tensor.offset + start * inner, memory_of(out), f"tensor {name!r}")
        elif out.numel():
            row_bytes = tensor.shape[dim] * inner
            # The view has one row per outer index, in bytes, so one loop serves every rank and element type.
            rows = out.view(outer, -1).view(torch.uint8)
            buffer = torch.empty((min(max(1, _CHUNK_BYTES // row_bytes), outer), row_bytes), dtype=torch.uint8)
            for first in range(0, outer, len(buffer)):
                chunk = buffer[: outer - first]
                file.read_into(tensor.offset + first * row_bytes, memory_of(chunk), f"tensor {name!r}")
                rows[first : first + len(chunk)] = chunk[:, start * inner : stop * inner]
        return out

    def close(self) -> None:
        for file in self._files:
            file.close()


def open_safetensors(path: Path) -> SafetensorsLoader:
    """Opens a .safetensors file, or the weights of a directory.

    In a directory those are `model.safetensors.index.json` with its shards, or `model.safetensors`, or the only
    .safetensors file.

    Raises:
        WeightsError: the files are damaged, incomplete or of another kind.
    """
    if not path.is_dir():
        return SafetensorsLoader(path, [path])
    index = path / _INDEX_FILE
    if index.exists():
        weight_map = _read_index(index)
        shards = [_shard_path(path, index, name) for name in sorted(set(weight_map.values()))]
        return SafetensorsLoader(index, shards, weight_map)
    single = path / "model.safetensors"
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
    def fail(cause: str) -> WeightsError:
        return WeightsError(f"{index} is not a valid shard index: {cause}", "Fetch the directory again.")

    with CheckedFile(index) as file:
        if file.size > _MAX_INDEX_BYTES:
            raise fail(f"it is {file.size} bytes long, the limit is {_MAX_INDEX_BYTES}")
        raw = file.read(0, file.size, "the index")
    try:
        weight_map = parse_table(raw).get("weight_map")
    except (ValueError, RecursionError) as error:
        raise fail(f"it is not JSON of an index: {error}") from None
    if not isinstance(weight_map, dict) or not weight_map:
        raise fail("it has no weight_map")
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or not shard.endswith(".safetensors") or any(c in shard for c in "/\\\0"):
            raise fail(
                f"tensor {name[:200]!r} is said to be in {str(shard)[:200]!r}, not a .safetensors file beside it"
            )
    return weight_map


def _shard_path(directory: Path, index: Path, name: str) -> Path:
    path = directory / name
    if not path.exists():
        raise WeightsError(
            f"shard {name} named by {index} is missing", "The checkpoint is incomplete; fetch the directory again."
        )
    home = directory.resolve()
    allowed = [home]
    if home.parent.name == "snapshots":
        # The hub's cache keeps a snapshot as links into the blobs of the same repository.
        allowed.append(home.parent.parent / "blobs")
    if path.resolve().parent not in allowed:
        raise WeightsError(
            f"shard {name} of {index} is a link to {path.resolve()}, outside the checkpoint",
            "Open the directory that really holds the shards, or copy them here.",
        )
    return path
