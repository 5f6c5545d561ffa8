# SPDX-License-Identifier: Apache-2.0
"""Defines what the runner needs from the family: configuration, tokenizer, chat template."""

from __future__ import annotations

from dataclasses import dataclass

from atb_core.checkpoint import GgufRules
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
    gguf = GgufRules(config={"norm_topk_prob": True})
