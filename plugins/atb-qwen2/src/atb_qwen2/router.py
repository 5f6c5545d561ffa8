# SPDX-License-Identifier: Apache-2.0
"""Where the runner enters the family."""

from __future__ import annotations

from dataclasses import dataclass

from atb_core.models.base.router import BaseRouter


@dataclass
class Qwen2Router(BaseRouter):
    """Routes `model_type` qwen2."""


@dataclass
class Qwen2MoeRouter(BaseRouter):
    """Routes `model_type` qwen2_moe."""
