# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding settings of a checkpoint, in the old and the new spelling of `config.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atb_core.errors import ConfigError

ROPE_TYPES = ("default", "linear", "llama3", "dynamic", "yarn")
# The settings that each type needs.
_REQUIRED = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
}
_NUMBERS = (
    "low_freq_factor", "high_freq_factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim",
    "factor",
)  # fmt: skip
_MAX_FACTOR = 1.0e6


@dataclass(frozen=True)
class RopeScaling:
    """How positions are scaled; `rope_type` is one of `ROPE_TYPES`, `None` means that the type computes the value.

    `original_max_position_embeddings` is the context the model was first trained on, in tokens.
    """

    rope_type: str = "default"
    factor: float = 1.0
    original_max_position_embeddings: int | None = None
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RopeScaling:
        """Reads the contents of `rope_scaling` or `rope_parameters`; `type` is the old name of `rope_type`.

        Raises:
            ConfigError: an unsupported type, a missing setting, or a value of the wrong type or size.
        """
        rope_type = values.get("rope_type", values.get("type", "default"))
        if rope_type not in ROPE_TYPES:
            raise ConfigError(
                f"rope_type = {rope_type!r} is not supported", hint=f"Supported: {', '.join(ROPE_TYPES)}."
            )
        partial = values.get("partial_rotary_factor", 1.0)
        if partial != 1.0:
            raise ConfigError(
                f"partial_rotary_factor = {partial!r} is not supported",
                hint="Only models that rotate the whole head (1.0) run.",
            )
        names = {field.name for field in dataclasses.fields(cls)}
        settings = {key: value for key, value in values.items() if key in names and value is not None}
        for name in _REQUIRED[rope_type]:
            if name not in settings:
                raise ConfigError(f"rope_scaling of type {rope_type!r} lacks {name!r}")
        scaling = cls(**{**settings, "rope_type": rope_type})
        scaling.validate()
        return scaling

    def validate(self) -> None:
        """Raises ConfigError naming the setting, its value and what is allowed."""
        for name in _NUMBERS:
            if getattr(self, name) is not None:
                check_number(f"rope_scaling {name}", getattr(self, name), 0.0, _MAX_FACTOR)
        if self.factor < 1.0:
            raise ConfigError(f"rope_scaling factor = {self.factor} must be at least 1")
        original = self.original_max_position_embeddings
        if original is not None and (type(original) is not int or not 1 <= original <= 2**27):
            raise ConfigError(f"original_max_position_embeddings = {original!r} must be an integer from 1 to {2**27}")
        if type(self.truncate) is not bool:
            raise ConfigError(f"rope_scaling truncate = {self.truncate!r} must be true or false")
        if self.rope_type == "llama3" and not 0.0 < self.low_freq_factor < self.high_freq_factor:
            raise ConfigError(
                f"rope_scaling low_freq_factor = {self.low_freq_factor} must be above 0 and below "
                f"high_freq_factor = {self.high_freq_factor}"
            )


def check_number(name: str, value: object, low: float, high: float) -> None:
    """Raises ConfigError for what is no number above `low` and at most `high`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low < value <= high:
        raise ConfigError(f"{name} = {value!r} must be a number above {low:g} and at most {high:g}")
