# SPDX-License-Identifier: Apache-2.0
"""Defines what the runner needs from the family: configuration, tokenizer, chat template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from atb_core.checkpoint import FormatRules
from atb_core.models.base.router import BaseRouter
from atb_llama.config import LlamaConfig


@dataclass
class LlamaRouter(BaseRouter):
    """Routes `model_type` llama."""

    tool_parser = "llama3_json"

    format_rules: ClassVar[Mapping[str, FormatRules]] = {"GGUF": FormatRules(permuted_qk=True)}

    def get_config(self) -> LlamaConfig:
        """Returns the checked configuration."""
        config = LlamaConfig.from_dict(self.config_dict)
        self.check_config(config)
        return config
