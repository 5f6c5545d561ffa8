# SPDX-License-Identifier: Apache-2.0
"""Defines the fields of a Llama `config.json`."""

from __future__ import annotations

from dataclasses import dataclass

from atb_core.models.base.config import BaseConfig


@dataclass
class LlamaConfig(BaseConfig):
    """Llama's fields are those of all dense decoders, with the same defaults."""

    model_type: str = "llama"
