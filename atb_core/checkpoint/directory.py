# SPDX-License-Identifier: Apache-2.0
"""Checkpoints as Hugging Face's libraries write them: a directory with JSON files and safetensors."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from atb_core.checkpoint.base import Checkpoint, TokenizerParts, WeightLoader
from atb_core.checkpoint.json_files import read_json_object
from atb_core.checkpoint.tokenizer_files import read_tokenizer_files
from atb_core.errors import ConfigError
from atb_core.graph.dtype import DataType


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
        return read_json_object(self.directory / "config.json", ConfigError)

    def config(self) -> dict[str, Any]:
        return dict(self._config)

    def generation_config(self) -> dict[str, Any]:
        return read_json_object(self.directory / "generation_config.json", ConfigError) or {}

    def tokenizer_parts(self) -> TokenizerParts:
        return read_tokenizer_files(self.directory)

    def weights(self, dtype: DataType | None = None) -> WeightLoader:
        # The loader imports torch.
        from atb_core.checkpoint.safetensors.loader import open_safetensors

        return open_safetensors(self.path)
