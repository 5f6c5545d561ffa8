# SPDX-License-Identifier: Apache-2.0
"""The fields of a `config.json` by which layers attend to a window of the context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from atb_core.errors import ConfigError
from atb_core.models.base.config import BaseConfig

__all__ = ["WindowConfig"]


@dataclass
class WindowConfig(BaseConfig):
    """Refuses a configuration in which a layer has a window; with `use_sliding_window` false none has."""

    int_limits: ClassVar[dict[str, tuple[int, int]]] = {"max_window_layers": (0, 2**20)}
    flags: ClassVar[tuple[str, ...]] = ("use_sliding_window",)

    use_sliding_window: bool = False
    sliding_window: int | None = None
    max_window_layers: int = 28
    layer_types: list[str] | None = None

    def validate(self) -> None:
        """Raises ConfigError for the first field that has an impossible or unsupported value."""
        super().validate()
        if self.layer_types is not None and not isinstance(self.layer_types, list):
            raise ConfigError(f"layer_types = {self.layer_types!r} must be a list of names")
        if self.use_sliding_window and self.has_windowed_layers():
            raise ConfigError(
                f"use_sliding_window = true (sliding_window = {self.sliding_window}) is not supported",
                hint="Set use_sliding_window to false in config.json to attend to the whole context.",
            )

    def has_windowed_layers(self) -> bool:
        """Returns true if some layer has the window when windows are used; without `layer_types`, the last ones."""
        if self.layer_types is not None:
            return "sliding_attention" in self.layer_types
        return self.max_window_layers < self.num_hidden_layers
