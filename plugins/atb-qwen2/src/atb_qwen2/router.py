# SPDX-License-Identifier: Apache-2.0
"""Defines what the runner needs from the family: configuration, tokenizer, chat template."""

from __future__ import annotations

from dataclasses import dataclass

from atb_core.models.base.router import BaseRouter


@dataclass
class Qwen2Router(BaseRouter):
    """Routes `model_type` qwen2."""

    tool_parser = "qwen2"


@dataclass
class Qwen2MoeRouter(BaseRouter):
    """Routes `model_type` qwen2_moe."""

    tool_parser = "qwen2"
