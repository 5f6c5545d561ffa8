# SPDX-License-Identifier: Apache-2.0
"""Defines the fields of a Qwen2 `config.json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from atb_core.models.base.moe_config import MoeConfig
from atb_core.models.base.window_config import WindowConfig


@dataclass
class Qwen2Config(WindowConfig):
    """Sets the defaults of Qwen2."""

    model_type: str = "qwen2"
    vocab_size: int = 151936
    intermediate_size: int = 22016
    max_position_embeddings: int = 32768
    attention_bias: bool = True


@dataclass
class Qwen2MoeConfig(Qwen2Config, MoeConfig):
    """Adds the fields of Qwen2 with experts and a shared expert."""

    spellings: ClassVar[dict[str, str]] = {"qkv_bias": "attention_bias"}

    model_type: str = "qwen2_moe"
    hidden_size: int = 2048
    intermediate_size: int = 5632
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    num_experts: int = 60
    num_experts_per_tok: int = 4
    moe_intermediate_size: int = 1408
    shared_expert_intermediate_size: int = 5632

    def has_windowed_layers(self) -> bool:
        """Returns true if any layer has a window: named by `layer_types`, else by a positive `max_window_layers`."""
        return self.max_window_layers > 0 if self.layer_types is None else super().has_windowed_layers()
