# SPDX-License-Identifier: Apache-2.0
"""Defines the fields of a Qwen3 `config.json`."""

from __future__ import annotations

from dataclasses import dataclass

from atb_core.models.base.moe_config import MoeConfig
from atb_core.models.base.window_config import LateWindowConfig


@dataclass
class Qwen3Config(LateWindowConfig):
    """Sets the defaults of Qwen3, which normalizes every head of queries and keys."""

    model_type: str = "qwen3"
    vocab_size: int = 151936
    intermediate_size: int = 22016
    head_dim: int | None = 128
    max_position_embeddings: int = 32768
    use_qk_norm: bool = True


@dataclass
class Qwen3MoeConfig(Qwen3Config, MoeConfig):
    """Adds the fields of Qwen3 with experts; without `head_dim` the heads divide the hidden size."""

    model_type: str = "qwen3_moe"
    hidden_size: int = 2048
    intermediate_size: int = 6144
    num_hidden_layers: int = 24
    num_key_value_heads: int | None = 4
    head_dim: int | None = None
    num_experts: int = 128
    num_experts_per_tok: int = 8
    moe_intermediate_size: int = 768

    def has_window(self, layer_idx: int) -> bool:
        """Returns true if windows are used: every layer then has one."""
        return self.use_sliding_window
