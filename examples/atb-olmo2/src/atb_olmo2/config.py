# SPDX-License-Identifier: Apache-2.0
"""Configuration: the fields of `config.json`."""

from __future__ import annotations

from dataclasses import dataclass

from atb_core.models.base.config import BaseConfig


@dataclass
class Olmo2Config(BaseConfig):
    """Configuration of OLMo-2: the defaults that differ from those of other dense decoders."""

    model_type: str = "olmo2"
    vocab_size: int = 50304
    rms_norm_eps: float = 1e-5
