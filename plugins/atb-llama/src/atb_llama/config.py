# SPDX-License-Identifier: Apache-2.0
"""The fields of a Llama `config.json`."""

from __future__ import annotations

from dataclasses import dataclass

from atb_core.errors import ConfigError
from atb_core.models.base.config import BaseConfig


@dataclass
class LlamaConfig(BaseConfig):
    """Every Llama field is one that dense decoders share, with the same defaults.

    `sliding_window` is no field of Llama's own, but files of other models come under its name.
    """

    model_type: str = "llama"
    sliding_window: int | None = None

    def validate(self) -> None:
        super().validate()
        if self.sliding_window is not None and self.sliding_window < self.max_position_embeddings:
            raise ConfigError(
                f"sliding_window = {self.sliding_window} is not supported",
                hint="This is a model of another family that uses Llama's name for its architecture.",
            )
