# SPDX-License-Identifier: Apache-2.0
"""Defines the fields of a Llama `config.json`."""

from __future__ import annotations

from dataclasses import dataclass

from atb_core.errors import ConfigError
from atb_core.models.base.config import BaseConfig


@dataclass
class LlamaConfig(BaseConfig):
    """Llama's fields are those of all dense decoders, with the same defaults.

    Llama has no `sliding_window`; other models' files with Llama's `model_type` may have it.
    """

    model_type: str = "llama"
    sliding_window: int | None = None

    def validate(self) -> None:
        """Refuses a window as well."""
        super().validate()
        if self.sliding_window is not None and self.sliding_window < self.max_position_embeddings:
            raise ConfigError(
                f"sliding_window = {self.sliding_window} is not supported",
                hint="The model is of another family that uses Llama's model_type.",
            )
