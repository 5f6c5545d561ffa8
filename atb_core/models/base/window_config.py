# SPDX-License-Identifier: Apache-2.0
"""The fields of a `config.json` by which layers attend to a window of the context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from atb_core.errors import ConfigError, shown
from atb_core.models.base.config import BaseConfig

__all__ = ["LateWindowConfig", "WindowConfig"]

_LAYER_TYPES = ("full_attention", "sliding_attention")


@dataclass
class WindowConfig(BaseConfig):
    """Adds `sliding_window`, the number of tokens that a token sees, itself included, and the layers that have it.

    Those are the layers that `layer_types` calls `sliding_attention`, by default all. A family with another rule
    overrides `has_window`.
    """

    sliding_window: int | None = None
    layer_types: list[str] | None = None

    def validate(self) -> None:
        """Raises ConfigError for the first field that has an impossible or unsupported value."""
        super().validate()
        if self.sliding_window is not None and (type(self.sliding_window) is not int or self.sliding_window < 0):
            raise ConfigError(f"sliding_window = {shown(self.sliding_window)} must be an integer from 0")
        types = self.layer_types
        if types is None:
            return
        if not isinstance(types, list) or len(types) < self.num_hidden_layers:
            raise ConfigError(f"layer_types = {shown(types)} must be a list with an entry for each layer")
        other = next((each for each in types if each not in _LAYER_TYPES), None)
        if other is not None:
            raise ConfigError(
                f"layer_types has {shown(other)}, which is not supported", hint=f"Supported: {', '.join(_LAYER_TYPES)}."
            )
        if "sliding_attention" in types[: self.num_hidden_layers] and not self._window:
            raise ConfigError("layer_types has 'sliding_attention', but sliding_window is not set, or is off")

    @property
    def _window(self) -> int | None:
        """The window of the layers that have one."""
        return self.sliding_window

    def has_window(self, layer_idx: int) -> bool:
        """Returns true if layer `layer_idx` has the window, if there is one."""
        return self.layer_types is None or self.layer_types[layer_idx] == "sliding_attention"

    def window_of(self, layer_idx: int) -> int | None:
        """Returns `sliding_window` for a layer that has it, unless the window is longer than the context."""
        window = self._window
        return window if window and window < self.context_length and self.has_window(layer_idx) else None


@dataclass
class LateWindowConfig(WindowConfig):
    """Adds another rule: with `use_sliding_window`, the layers from `max_window_layers` on have the window."""

    int_limits: ClassVar[dict[str, tuple[int, int]]] = {"max_window_layers": (0, 2**20)}
    flags: ClassVar[tuple[str, ...]] = ("use_sliding_window",)

    use_sliding_window: bool = False
    max_window_layers: int = 28

    @property
    def _window(self) -> int | None:
        return self.sliding_window if self.use_sliding_window else None

    def has_window(self, layer_idx: int) -> bool:
        """Returns true for a layer of `layer_types`, else for one from `max_window_layers` on."""
        return super().has_window(layer_idx) if self.layer_types is not None else layer_idx >= self.max_window_layers
