# SPDX-License-Identifier: Apache-2.0
"""Configuration: the fields of `config.json`."""

from __future__ import annotations

from dataclasses import dataclass

from atb_core.models.base.config import BaseConfig, Rope


@dataclass
class Glm4Config(BaseConfig):
    """Configuration of GLM-4, which rotates neighbouring elements of the first part of each head."""

    model_type: str = "glm4"
    vocab_size: int = 151552
    rms_norm_eps: float = 1.5625e-07
    attention_bias: bool = True
    partial_rotary_factor: float = 0.5

    def rope_of(self, layer_idx: int) -> Rope:
        """Returns the rotation, the same for all layers."""
        return self.rope(interleaved=True)
