# SPDX-License-Identifier: Apache-2.0
"""Where the runner enters the family."""

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

    # GGUF files do not say it, and every published model is so.
    gguf = GgufRules(config={"norm_topk_prob": True})
