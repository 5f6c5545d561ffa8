# SPDX-License-Identifier: Apache-2.0
"""Checkpoints as Hugging Face's libraries write them: a directory with JSON files and safetensors."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atb_core.checkpoint.base import Checkpoint, TokenizerParts, WeightLoader
from atb_core.checkpoint.safetensors import open_safetensors
from atb_core.errors import ConfigError, TokenizerError
from atb_core.files import read_json, read_text
from atb_core.graph.dtype import DataType

if TYPE_CHECKING:
    import tokenizers

_TEMPLATE_FILE = "chat_template.jinja"
_MAX_TEMPLATE_BYTES = 1 << 20
_SLOW_FORMATS = ("tokenizer.model", "vocab.json", "spiece.model", "vocab.txt")


class DirectoryCheckpoint(Checkpoint):
    """A directory with `config.json`, `tokenizer.json` and safetensors, or one safetensors file of it.

    Attributes:
        directory: the place of the files that are not weights.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.directory = path if path.is_dir() else path.parent

    @cached_property
    def _config(self) -> dict[str, Any]:
        config = self.read_config()
        if config is None:
            raise ConfigError(
                f"There is no config.json in {self.directory}",
                hint="A model directory holds config.json, tokenizer.json and *.safetensors; or pass a .gguf file.",
            )
        return config

    def read_config(self) -> dict[str, Any] | None:
        """Reads the configuration; returns `None` if there is no file of it."""
        return read_json(self.directory / "config.json", ConfigError)

    def config(self) -> dict[str, Any]:
        return dict(self._config)

    def generation_config(self) -> dict[str, Any]:
        return read_json(self.directory / "generation_config.json", ConfigError) or {}

    def tokenizer_parts(self) -> TokenizerParts:
        return read_tokenizer_files(self.directory)

    def weights(self, dtype: DataType | None = None) -> WeightLoader:
        return open_safetensors(self.path)


def read_tokenizer_files(directory: Path) -> TokenizerParts:
    """Reads `tokenizer.json`, or an older format that transformers converts, and the JSON files beside it.

    Raises:
        TokenizerError: there is no tokenizer, or it is damaged or of an unsupported kind.
    """
    backend = _load_backend(directory)
    config = _read(directory / "tokenizer_config.json")
    special_tokens = _special_tokens({**_read(directory / "special_tokens_map.json"), **config})
    return TokenizerParts(
        backend=backend,
        eos_token_ids=_eos_token_ids(directory, backend, special_tokens),
        special_tokens=special_tokens,
        chat_templates=_chat_templates(directory, config),
    )


def _load_backend(directory: Path) -> tokenizers.Tokenizer:
    import tokenizers

    path = directory / "tokenizer.json"
    if path.is_file():
        try:
            return tokenizers.Tokenizer.from_file(str(path))
        # The library raises a bare Exception for every kind of damage.
        except Exception as error:
            raise TokenizerError(f"{path} cannot be read: {str(error)[:300]}", hint="Fetch the file again.") from error
    slow = [name for name in _SLOW_FORMATS if (directory / name).is_file()]
    if not slow:
        raise TokenizerError(
            f"There is no tokenizer in {directory}",
            hint="Add its tokenizer.json, or open the model with load_tokenizer=False and pass token ids.",
        )
    return _convert_with_transformers(directory, slow[0])


def _convert_with_transformers(directory: Path, name: str) -> tokenizers.Tokenizer:
    """Converts an old format, which only transformers reads."""
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise TokenizerError(
            f"{directory} has its tokenizer only as {name}, which the transformers package converts",
            hint="Run: pip install transformers sentencepiece; or add a tokenizer.json to the directory.",
        ) from None
    try:
        converted = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise TokenizerError(
            f"transformers cannot convert {directory / name}: {str(error)[:300]}",
            hint="Add a tokenizer.json to the directory.",
        ) from error
    backend = getattr(converted, "backend_tokenizer", None)
    if backend is None:
        raise TokenizerError(
            f"transformers reads {directory / name} but has no fast form of it",
            hint="Add a tokenizer.json to the directory.",
        )
    result: tokenizers.Tokenizer = backend
    return result


def _read(path: Path) -> dict[str, Any]:
    return read_json(path, TokenizerError) or {}


def _special_tokens(config: dict[str, Any]) -> dict[str, str]:
    texts = {name: value.get("content") if isinstance(value, dict) else value for name, value in config.items()}
    return {name: text for name, text in texts.items() if name.endswith("_token") and isinstance(text, str)}


def _eos_token_ids(directory: Path, backend: tokenizers.Tokenizer, special_tokens: dict[str, str]) -> frozenset[int]:
    """Returns the generation configuration's ids if it names any, else the model's; and the tokenizer's own."""
    ids: list[int] = []
    for name in ("generation_config.json", "config.json"):
        value = _read(directory / name).get("eos_token_id")
        ids = ids or [item for item in (value if isinstance(value, list) else [value]) if type(item) is int]
    own = backend.token_to_id(special_tokens.get("eos_token", ""))
    return frozenset(ids if own is None else [*ids, own])


def _chat_templates(directory: Path, config: dict[str, Any]) -> dict[str, str]:
    """Returns the templates by name. A separate file takes precedence over tokenizer_config.json."""
    listed = config.get("chat_template")
    named = listed if isinstance(listed, list) else [{"name": "default", "template": listed}]
    templates: dict[str, str] = {
        str(item.get("name")): item["template"]
        for item in named
        if isinstance(item, dict) and isinstance(item.get("template"), str)
    }
    separate = read_text(directory / _TEMPLATE_FILE, _MAX_TEMPLATE_BYTES, TokenizerError)
    return templates if separate is None else {**templates, "default": separate}
