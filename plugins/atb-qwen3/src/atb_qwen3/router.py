# SPDX-License-Identifier: Apache-2.0
"""Defines what the runner needs from the family: configuration, tokenizer, chat template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from atb_core.checkpoint import FormatRules
from atb_core.models.base.router import BaseRouter


@dataclass
class Qwen3Router(BaseRouter):
    """Routes `model_type` qwen3."""

    thinking_variable = "enable_thinking"
    tool_parser = "qwen3"


@dataclass
class Qwen3MoeRouter(Qwen3Router):
    """Routes `model_type` qwen3_moe."""

    # GGUF files lack this entry; it is true for every published model.
    format_rules: ClassVar[Mapping[str, FormatRules]] = {"GGUF": FormatRules(config={"norm_topk_prob": True})}
