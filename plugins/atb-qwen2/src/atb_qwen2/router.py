# SPDX-License-Identifier: Apache-2.0
"""Where the runner enters the family."""

from __future__ import annotations

from dataclasses import dataclass

from atb_core.models.base.router import BaseRouter
from atb_qwen2.config import Qwen2Config


@dataclass
class Qwen2Router(BaseRouter):
    """Routes `model_type` qwen2."""

    def get_config(self) -> Qwen2Config:
        config = Qwen2Config.from_dict(self.config_dict)
        self.check_config(config)
        return config
