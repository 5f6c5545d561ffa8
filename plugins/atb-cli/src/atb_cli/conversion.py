# SPDX-License-Identifier: Apache-2.0
"""Writes a checkpoint of any format as a directory with safetensors, tensor by tensor."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from atb_cli.output import writing
from atb_core.checkpoint import Checkpoint, DirectoryCheckpoint, TokenizerParts, WeightLoader, job, library_errors
from atb_core.checkpoint.files import memory_of
from atb_core.errors import ConfigError, TokenizerError, WeightsError
from atb_core.files import read_file
from atb_core.graph import DataType
from atb_core.models.base.router import router_of

if TYPE_CHECKING:
    from atb_core.graph.arrays import HostArray

# Sizes of the files, as transformers cuts them, and of what is in memory of one tensor.
_SHARD_BYTES: Final = 5 << 30
_PIECE_BYTES: Final = 256 << 20
_TOKENIZER_FILES: Final = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model",
    "spiece.model", "vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja",
)  # fmt: skip
_TEMPLATES: Final = "additional_chat_templates"
_MAX_FILE_BYTES: Final = 256 << 20
_CODES: Final = {
    DataType.FLOAT: "F32",
    DataType.FLOAT16: "F16",
    DataType.BF16: "BF16",
    DataType.INT8: "I8",
    DataType.INT32: "I32",
    DataType.INT64: "I64",
    DataType.BOOL: "BOOL",
}
Tensors = dict[str, tuple[DataType, tuple[int, ...]]]


def convert(checkpoint: Checkpoint, target: Path, dtype: DataType | None) -> None:
    """Writes `checkpoint` as the directory `target`, which appears when it is complete.

    Args:
        checkpoint: one that an installed family serves: its rules give tensors their names.
        target: a path where nothing is, or an empty directory.
        dtype: floating type of the weights; `None` takes the configuration's, and of plain types each tensor's own.

    Raises:
        WeightsError: there is something at `target`, the disk is too small, or the tensors cannot be read.
        AtbError: the directory cannot be written.
        ConfigError: the configuration cannot be used, or says that the weights are quantised.
        TokenizerError: the tokenizer cannot be read, or needs a process of its own.
        UnknownModelError: no installed family serves the model.
    """
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise WeightsError(f"{target} exists, and nothing is overwritten", "Name a directory that does not exist.")
    router = router_of(checkpoint)
    config = {**checkpoint.config(), "model_type": router.model_type}
    if config.get("quantization_config"):
        raise ConfigError(f"{checkpoint} holds quantised weights, which only formats with types for them can deliver")
    chosen = router.config.data_type if dtype is None else dtype
    config = {key: value for key, value in config.items() if key != "dtype"} | {"torch_dtype": chosen.short}
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        # Beside the target, so that it can be renamed.
        working = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            _write_json(working / "config.json", config)
            _write_tokenizer(checkpoint, working)
            with checkpoint.weights(chosen) as loader:
                _write_weights(loader, working, dtype)
            working.chmod(0o777 & ~_umask())
            working.replace(target)
        finally:
            shutil.rmtree(working, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _write_tokenizer(checkpoint: Checkpoint, target: Path) -> None:
    """Writes tokenizer, templates and generation settings; a directory's own files are copied as they are."""
    if not isinstance(checkpoint, DirectoryCheckpoint):
        parts = checkpoint.tokenizer_parts()
        ends = {"eos_token_id": sorted(parts.eos_token_ids)} if parts.eos_token_ids else {}
        if generation := {**checkpoint.generation_config(), **ends}:
            _write_json(target / "generation_config.json", generation)
        _write_parts(parts, target)
        return
    templates = sorted((checkpoint.directory / _TEMPLATES).glob("*.jinja"))
    files = [*(checkpoint.directory / name for name in (*_TOKENIZER_FILES, "generation_config.json")), *templates]
    for path in files:
        data = read_file(path, _MAX_FILE_BYTES, TokenizerError)
        if data is not None:
            copy = target / path.relative_to(checkpoint.directory)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(data)


def _write_parts(parts: TokenizerParts, target: Path) -> None:
    import tokenizers
    from tokenizers.processors import TemplateProcessing

    backend = parts.backend
    if not isinstance(backend, tokenizers.Tokenizer):
        raise TokenizerError("the model's tokenizer runs in a process of its own, and cannot be written")
    with library_errors("The tokenizer cannot be written"):
        ends = [number for number in (parts.bos_id, parts.eos_id) if number is not None]
        texts = {number: backend.id_to_token(number) for number in ends}
        if texts:
            before, after = ([texts[one]] if one is not None else [] for one in (parts.bos_id, parts.eos_id))
            special = [(text, number) for number, text in texts.items()]
            backend.post_processor = TemplateProcessing(single=[*before, "$A", *after], special_tokens=special)
        backend.save(str(target / "tokenizer.json"))
    # Readers make a token of each text that is named: one that the tokenizer cuts into pieces is left out.
    own = {token.content for token in backend.get_added_tokens_decoder().values()}
    named = {name: text for name, text in parts.special_tokens.items() if text in own}
    _write_json(target / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **named})
    for name, source in parts.chat_templates.items():
        path = target / _TEMPLATES / f"{re.sub(r'[^A-Za-z0-9_-]', '_', name)}.jinja"
        path = target / "chat_template.jinja" if name == "default" else path
        path.parent.mkdir(exist_ok=True)
        path.write_text(source, encoding="utf-8")


def _write_weights(loader: WeightLoader, target: Path, dtype: DataType | None) -> None:
    """Writes shards, with an index if there are several."""
    tensors: Tensors = {}
    for name in loader.names():
        own = loader.dtype(name)
        tensors[name] = dtype if dtype is not None and own.is_float else own, tuple(loader.shape(name))
    shards = list(_shards(tensors))
    size = sum(_nbytes(tensors[name]) for names in shards for name in names)
    if (free := shutil.disk_usage(target).free) < size:
        raise WeightsError(
            f"the weights take {size / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free at {target.parent}"
        )
    files = ["model.safetensors"]
    if len(shards) > 1:
        files = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
        weight_map = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        _write_json(
            target / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": weight_map}
        )
    with job(None, "converting", size) as progress:
        for file, names in zip(files, shards, strict=True):
            with open(target / file, "wb") as stream:
                _write_header(stream, {name: tensors[name] for name in names})
                for name in names:
                    for piece in _pieces(loader, name, *tensors[name]):
                        stream.write(memory_of(piece))
                        progress.advance(piece.nbytes)


def _nbytes(tensor: tuple[DataType, tuple[int, ...]]) -> int:
    dtype, shape = tensor
    count = dtype.itemsize
    for length in shape:
        count *= length
    return count


def _shards(tensors: Tensors) -> Iterator[list[str]]:
    """Yields the names for each file, in their order."""
    names: list[str] = []
    size = 0
    for name, tensor in tensors.items():
        if names and size + _nbytes(tensor) > _SHARD_BYTES:
            yield names
            names, size = [], 0
        names.append(name)
        size += _nbytes(tensor)
    yield names


def _write_header(stream: BinaryIO, tensors: Tensors) -> None:
    """Writes the table of a safetensors file; the library itself writes only tensors that are all in memory."""
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (dtype, shape) in tensors.items():
        end = offset + _nbytes((dtype, shape))
        table[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    header = json.dumps(table, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    stream.write(struct.pack("<Q", len(header)) + header)


def _pieces(loader: WeightLoader, name: str, dtype: DataType, shape: tuple[int, ...]) -> Iterator[HostArray]:
    """Yields a tensor in pieces of rows that fit into memory."""
    from atb_core.graph.arrays import numpy_dtype, to_numpy

    nbytes = _nbytes((dtype, shape))
    if nbytes <= _PIECE_BYTES or len(shape) < 2:
        yield to_numpy(loader.get(name)).astype(numpy_dtype(dtype), copy=False)
        return
    step = max(1, _PIECE_BYTES * shape[0] // nbytes)
    for start in range(0, shape[0], step):
        rows = to_numpy(loader.get_slice(name, 0, start, min(start + step, shape[0])))
        yield rows.astype(numpy_dtype(dtype), copy=False)
