# SPDX-License-Identifier: Apache-2.0
"""Writing safetensors one tensor at a time, so that a conversion never holds more than one."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from atb_core.checkpoint.base import WeightLoader
from atb_core.checkpoint.progress import Progress
from atb_core.checkpoint.reading import memory_of
from atb_core.checkpoint.safetensors.loader import INDEX_FILE, SINGLE_FILE
from atb_core.graph.dtype import DataType

_NAMES = {
    DataType.FLOAT: "F32",
    DataType.FLOAT16: "F16",
    DataType.BF16: "BF16",
    DataType.INT8: "I8",
    DataType.INT32: "I32",
    DataType.INT64: "I64",
    DataType.BOOL: "BOOL",
}


def written_bytes(loader: WeightLoader, name: str) -> int:
    """Size of a tensor as `write_checkpoint` stores it."""
    return math.prod(loader.shape(name)) * loader.dtype(name).itemsize


def write_checkpoint(loader: WeightLoader, directory: Path, max_shard_bytes: int, progress: Progress) -> None:
    """Write all tensors of `loader` into `directory`: one file, or shards of at most `max_shard_bytes` and an index.

    A tensor larger than a shard gets its own. Progress is reported in bytes of the source (`loader.nbytes`).
    """
    shards: list[list[str]] = [[]]
    size = 0
    for name in loader.names():
        nbytes = written_bytes(loader, name)
        if shards[-1] and size + nbytes > max_shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += nbytes
    if len(shards) == 1:
        _write_file(loader, shards[0], directory / SINGLE_FILE, progress)
        return
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file_name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_file(loader, names, directory / file_name, progress)
        weight_map.update(dict.fromkeys(names, file_name))
    total = sum(written_bytes(loader, name) for name in weight_map)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (directory / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _write_file(loader: WeightLoader, names: Sequence[str], path: Path, progress: Progress) -> None:
    # Wider elements first, so that every tensor's start is a multiple of its element's size.
    ordered = sorted(names, key=lambda name: -loader.dtype(name).itemsize)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name in ordered:
        end = position + written_bytes(loader, name)
        header[name] = {
            "dtype": _NAMES[loader.dtype(name)],
            "shape": list(loader.shape(name)),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb") as sink:
        sink.write(len(text).to_bytes(8, "little"))
        sink.write(text)
        for name in ordered:
            sink.write(memory_of(loader.get(name)))
            progress.advance(loader.nbytes(name))
