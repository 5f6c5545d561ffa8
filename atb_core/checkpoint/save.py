# SPDX-License-Identifier: Apache-2.0
"""Writing a model directory as Hugging Face's libraries read it, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atb_core.checkpoint.base import WeightLoader
from atb_core.checkpoint.progress import Progress, job
from atb_core.checkpoint.safetensors.write import write_checkpoint, written_bytes
from atb_core.checkpoint.sources.cache import explained_disk_errors, require_room
from atb_core.errors import WeightsError

if TYPE_CHECKING:
    from atb_core.checkpoint.gguf.rules import GgufRules
    from atb_core.checkpoint.gguf.tokenizer import GgufTokenizer
    from atb_core.graph.dtype import DataType

DEFAULT_SHARD_BYTES = 5_000_000_000
_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "chat_template.jinja", "generation_config.json",
)  # fmt: skip


def save_checkpoint(
    loader: WeightLoader,
    config: Mapping[str, Any],
    target: Path,
    *,
    write_tokenizer: Callable[[Path], None] | None = None,
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
    progress: Progress | None = None,
) -> None:
    """Write `config.json`, the tensors as safetensors and, with `write_tokenizer(directory)`, the tokenizer's files.

    The directory appears at `target` only when it is complete; an interruption or a full disk leaves nothing.

    Raises:
        WeightsError: `target` exists and is not an empty directory, there is no room, or the loader fails.
    """
    target = Path(target).absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise WeightsError(f"{target} exists already", "Choose another directory, or remove it first.")
    with explained_disk_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        names = loader.names()
        require_room(target.parent, sum(written_bytes(loader, name) for name in names), f"write {target.name}")
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
        try:
            # mkdtemp makes a private directory; the result should be as readable as any other the user makes.
            mask = os.umask(0)
            os.umask(mask)
            temporary.chmod(0o777 & ~mask)
            write_json(temporary / "config.json", config)
            if write_tokenizer is not None:
                write_tokenizer(temporary)
            with job(progress, f"Writing {target.name}", sum(loader.nbytes(name) for name in names)) as bar:
                write_checkpoint(loader, temporary, max_shard_bytes, bar)
            os.replace(temporary, target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def save_gguf_as_directory(
    path: Path,
    target: Path,
    rules: GgufRules | None = None,
    *,
    model_type: str | None = None,
    dtype: DataType | None = None,
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
    progress: Progress | None = None,
) -> None:
    """Convert a GGUF file to a directory with config, dequantised safetensors and tokenizer.

    Args:
        path: the `.gguf` file.
        target: the directory to make.
        rules: the family's, as for `open_weights`.
        model_type: the family's name where it is not the file's `general.architecture`, see `model_type_of`.
        dtype: element type to write (default: the file's `gguf_dtype`).
        max_shard_bytes: see `save_checkpoint`.
        progress: told about the bytes read.
    """
    from atb_core.checkpoint import open_weights
    from atb_core.checkpoint.gguf.config import read_gguf_config
    from atb_core.checkpoint.gguf.tokenizer import load

    config = read_gguf_config(path, rules)
    if model_type is not None:
        config["model_type"] = model_type
    if dtype is not None:
        config["torch_dtype"] = dtype.short
    tokenizer = load(path)
    with open_weights(path, rules, dtype) as loader:
        save_checkpoint(
            loader,
            config,
            target,
            write_tokenizer=lambda directory: write_gguf_tokenizer(tokenizer, directory),
            max_shard_bytes=max_shard_bytes,
            progress=progress,
        )


def copy_tokenizer_files(source: Path) -> Callable[[Path], None]:
    """A `write_tokenizer` that copies what the directory `source` has of a tokenizer."""

    def write(directory: Path) -> None:
        for name in _TOKENIZER_FILES:
            if (source / name).is_file():
                shutil.copyfile(source / name, directory / name)

    return write


def write_gguf_tokenizer(tokenizer: GgufTokenizer, directory: Path) -> None:
    """Write `tokenizer.json`, `tokenizer_config.json` and `generation_config.json`."""
    from tokenizers import Tokenizer, processors

    rebuilt = Tokenizer.from_str(tokenizer.tokenizer.to_str())
    bos, eos = tokenizer.token(tokenizer.bos_id), tokenizer.token(next(iter(tokenizer.eos_ids), None))
    if tokenizer.add_bos and bos is not None:
        rebuilt.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.bos_id)]
        )
    rebuilt.save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": bos,
        "eos_token": eos,
        "pad_token": tokenizer.token(tokenizer.pad_id),
        "unk_token": tokenizer.token(tokenizer.unk_id),
        "add_bos_token": tokenizer.add_bos,
        "add_eos_token": tokenizer.add_eos,
        "clean_up_tokenization_spaces": False,
        "chat_template": tokenizer.chat_template,
    }
    write_json(directory / "tokenizer_config.json", {k: v for k, v in settings.items() if v is not None})
    generation = {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": list(tokenizer.eos_ids),
        "pad_token_id": tokenizer.pad_id,
    }
    write_json(directory / "generation_config.json", {k: v for k, v in generation.items() if v not in (None, [])})


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` as indented UTF-8 JSON."""
    path.write_text(json.dumps(dict(content), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
