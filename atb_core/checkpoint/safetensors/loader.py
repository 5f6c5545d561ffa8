# SPDX-License-Identifier: Apache-2.0
"""Reads the tensors of safetensors: one file, or shards with an index."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atb_core.checkpoint.base import WeightLoader, check_slice
from atb_core.checkpoint.files import CheckedFile
from atb_core.checkpoint.reading import read_array, read_array_slice
from atb_core.checkpoint.safetensors.header import TensorEntry, read_safetensors_header
from atb_core.errors import WeightsError
from atb_core.graph.dtype import DataType

if TYPE_CHECKING:
    import torch

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_MAX_INDEX_BYTES = 100_000_000

_READABLE = {
    "F32": DataType.FLOAT,
    "F16": DataType.FLOAT16,
    "BF16": DataType.BF16,
    "I8": DataType.INT8,
    "I32": DataType.INT32,
    "I64": DataType.INT64,
    "BOOL": DataType.BOOL,
}


@dataclass(frozen=True)
class _Located:
    file: CheckedFile
    entry: TensorEntry


class SafetensorsLoader(WeightLoader):
    """Reads one safetensors file or several that share no tensor name."""

    def __init__(self, source: Path, paths: Sequence[Path], weight_map: Mapping[str, str] | None = None) -> None:
        """Opens and checks `paths`; with a `weight_map` (tensor -> file name) the two must agree exactly."""
        self._source = source
        self._tensors: dict[str, _Located] = {}
        self._files: list[CheckedFile] = []
        try:
            for path in paths:
                self._add(path, weight_map)
            if weight_map is not None:
                self._check_complete(weight_map)
        except BaseException:
            self.close()
            raise

    def _add(self, path: Path, weight_map: Mapping[str, str] | None) -> None:
        file = CheckedFile(path)
        self._files.append(file)
        for name, entry in read_safetensors_header(file).tensors.items():
            if weight_map is not None and weight_map.get(name) != path.name:
                where = f"puts it in {weight_map[name]}" if name in weight_map else "does not list it"
                raise WeightsError(
                    f"{path} contains tensor {name!r}, but the index {self._source} {where}",
                    "The shards and the index are from different checkpoints; fetch the directory again.",
                )
            if name in self._tensors:
                raise WeightsError(f"tensor {name!r} is both in {self._tensors[name].file.path} and in {path}")
            self._tensors[name] = _Located(file, entry)

    def _check_complete(self, weight_map: Mapping[str, str]) -> None:
        missing = [f"{name} ({shard})" for name, shard in weight_map.items() if name not in self._tensors]
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise WeightsError(
                f"{self._source} lists tensors that are not in their shards: {', '.join(missing[:5])}{more}",
                "The checkpoint is incomplete; fetch the directory again.",
            )

    @property
    def source(self) -> str:
        return str(self._source)

    def names(self) -> Sequence[str]:
        return tuple(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def _locate(self, name: str) -> _Located:
        try:
            return self._tensors[name]
        except KeyError:
            raise self.unknown(name) from None

    def shape(self, name: str) -> tuple[int, ...]:
        return self._locate(name).entry.shape

    def dtype(self, name: str) -> DataType:
        located = self._locate(name)
        try:
            return _READABLE[located.entry.dtype]
        except KeyError:
            raise WeightsError(
                f"tensor {name!r} in {located.file.path} has element type {located.entry.dtype}, which is not "
                f"supported (supported: {', '.join(_READABLE)})",
                "Use a checkpoint in bfloat16, float16 or float32.",
            ) from None

    def nbytes(self, name: str) -> int:
        return self._locate(name).entry.nbytes

    def get(self, name: str) -> torch.Tensor:
        located, dtype = self._locate(name), self.dtype(name)
        return read_array(located.file, located.entry.offset, located.entry.shape, dtype, f"tensor {name!r}")

    def get_slice(self, name: str, dim: int, start: int, stop: int) -> torch.Tensor:
        located, dtype = self._locate(name), self.dtype(name)
        entry = located.entry
        check_slice(str(located.file.path), name, entry.shape, dim, start, stop)
        bounds = (dim, start, stop)
        return read_array_slice(located.file, entry.offset, entry.shape, dtype, bounds, f"tensor {name!r}")

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
    directory = path
    index = directory / INDEX_FILE
    if index.exists():
        weight_map = _read_index(index)
        shards = [_shard_path(directory, index, name) for name in sorted(set(weight_map.values()))]
        return SafetensorsLoader(index, shards, weight_map)
    single = directory / SINGLE_FILE
    if single.exists():
        return SafetensorsLoader(single, [single])
    found = sorted(directory.glob("*.safetensors"))
    if len(found) == 1:
        return SafetensorsLoader(found[0], found)
    raise _nothing_to_open(directory, found)


def _nothing_to_open(directory: Path, found: Sequence[Path]) -> WeightsError:
    if found:
        names = ", ".join(path.name for path in found[:4])
        return WeightsError(
            f"{directory} has {len(found)} safetensors files ({names}, ...) but no {INDEX_FILE}",
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

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) != len(pairs):
            raise fail("it has a key twice")
        return table

    with CheckedFile(index) as file:
        if file.size > _MAX_INDEX_BYTES:
            raise fail(f"it is {file.size} bytes long, the limit is {_MAX_INDEX_BYTES}")
        raw = bytes(file.read(0, file.size, "the index"))
    try:
        table = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise fail(f"it is not JSON: {error}") from None
    weight_map = table.get("weight_map") if isinstance(table, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise fail("it has no weight_map")
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or not shard.endswith(".safetensors") or not _is_plain_name(shard):
            raise fail(
                f"tensor {name[:200]!r} is said to be in {str(shard)[:200]!r}, not a .safetensors file beside it"
            )
    return weight_map


def _is_plain_name(name: str) -> bool:
    return not any(character in name for character in "/\\\0") and name not in (".", "..")


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
