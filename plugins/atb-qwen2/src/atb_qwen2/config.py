# SPDX-License-Identifier: Apache-2.0
"""The fields of a Qwen2 `config.json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from atb_core.errors import ConfigError
from atb_core.models.base.config import BaseConfig


@dataclass
class Qwen2Config(BaseConfig):
    """Qwen2's defaults where they differ, and its sliding window."""

    int_limits: ClassVar[dict[str, tuple[int, int]]] = {**BaseConfig.int_limits, "max_window_layers": (0, 2**20)}
    flags: ClassVar[tuple[str, ...]] = (*BaseConfig.flags, "use_sliding_window")

    model_type: str = "qwen2"
    vocab_size: int = 151936
    intermediate_size: int = 22016
    max_position_embeddings: int = 32768
    attention_bias: bool = True
    use_sliding_window: bool = False
    sliding_window: int | None = None
    max_window_layers: int = 28

    def validate(self) -> None:
        super().validate()
        if self.use_sliding_window and self.max_window_layers < self.num_hidden_layers:
            raise ConfigError(
                f"use_sliding_window = true (sliding_window = {self.sliding_window}) is not supported",
                hint="Set use_sliding_window to false in config.json to attend to the whole context.",
            )
