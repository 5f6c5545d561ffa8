# SPDX-License-Identifier: Apache-2.0
"""Defines the fields of a Qwen2 `config.json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from atb_core.models.base.moe_config import MoeConfig
from atb_core.models.base.window_config import LateWindowConfig


@dataclass
class Qwen2Config(LateWindowConfig):
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

    def has_window(self, layer_idx: int) -> bool:
        """Returns true for a layer of `layer_types`, else for every other one below `max_window_layers`."""
        if self.layer_types is not None:
            return super().has_window(layer_idx)
        return self.use_sliding_window and layer_idx % 2 == 0 and layer_idx < self.max_window_layers
