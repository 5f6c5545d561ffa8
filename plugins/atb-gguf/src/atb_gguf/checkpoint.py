# SPDX-License-Identifier: Apache-2.0
"""A checkpoint in GGUF, which carries configuration and tokenizer along with the tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from atb_core.checkpoint import Checkpoint, FormatRules, TokenizerParts, WeightLoader
from atb_core.graph import DataType
from atb_gguf.config import PLAIN_TYPES, config_of, declared_config
from atb_gguf.file import GgufFile, read_gguf_header
from atb_gguf.names import model_type_of
from atb_gguf.tokenizer import read_gguf_tokenizer


class GgufCheckpoint(Checkpoint):
    """A GGUF file, read under Hugging Face's names."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._rules = FormatRules()
        self._read: GgufFile | None = None

    @cached_property
    def _config(self) -> tuple[dict[str, Any], dict[str, Any]]:
        with GgufFile(self.path, texts=False) as file:
            self._read = file
            return config_of(file)

    def config(self) -> dict[str, Any]:
        config, unread = self._config
        return {**self._rules.config, **config, **declared_config(unread, self._rules, self.path)}

    def generation_config(self) -> dict[str, Any]:
        return {}

    def tokenizer_parts(self) -> TokenizerParts:
        return read_gguf_tokenizer(self.path)

    def weights(self, dtype: DataType | None = None) -> WeightLoader:
        # The loader imports torch.
        from atb_gguf.loader import GgufLoader

        return GgufLoader(self.path, self._rules, dtype, self._read)

    def model_type(self, served: Iterable[str]) -> str:
        """Returns the type of `served` that the architecture stands for, else the architecture."""
        return model_type_of(self._config[0]["model_type"], served)

    def set_rules(self, rules: Mapping[str, FormatRules]) -> None:
        self._rules = rules.get("GGUF", FormatRules())

    def stored_types(self) -> Counter[str]:
        return Counter(tensor.type.name for tensor in read_gguf_header(self.path, texts=False).tensors.values())

    def quantization(self) -> str | None:
        """Returns the commonest type unless it is a plain one, or the file has no tensors."""
        commonest = next((name for name, _ in self.stored_types().most_common(1)), None)
        return None if commonest in {kind.name for kind in PLAIN_TYPES} else commonest
