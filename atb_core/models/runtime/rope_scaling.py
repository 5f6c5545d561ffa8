# SPDX-License-Identifier: Apache-2.0
"""Settings of rotary position embedding, in the old and the new spelling of `config.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atb_core.errors import ConfigError

# The settings that each type needs.
_REQUIRED: dict[str, tuple[str, ...]] = {
    "default": (), "linear": ("factor",), "dynamic": ("factor",), "yarn": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"), "longrope": ("short_factor", "long_factor"),
}  # fmt: skip
ROPE_TYPES = tuple(_REQUIRED)
_NUMBERS = (
    "low_freq_factor", "high_freq_factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim",
    "factor",
)  # fmt: skip
_LISTS = ("short_factor", "long_factor")
# Settings beside those of `RopeScaling`: read elsewhere, or written by training. Others have to be off.
_OTHERS = ("type", "rope_theta", "partial_rotary_factor", "finetuned")
_MAX_FACTOR = 1.0e6


@dataclass(frozen=True)
class RopeScaling:
    """Settings by which positions are scaled; `rope_type` is one of `ROPE_TYPES`. `None`: the type computes the value.

    `original_max_position_embeddings` is the context the model was first trained on, in tokens. `short_factor` and
    `long_factor`, for `longrope`, divide each frequency in sequences up to that length, and in longer ones.
    """

    rope_type: str = "default"
    factor: float | None = None
    original_max_position_embeddings: int | None = None
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True
    short_factor: tuple[float, ...] = ()
    long_factor: tuple[float, ...] = ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RopeScaling:
        """Reads the contents of `rope_scaling` or `rope_parameters`; `type` is the old name of `rope_type`.

        Raises:
            ConfigError: an unsupported type or setting, a missing one, or a value of the wrong type or size.
        """
        rope_type = values.get("rope_type", values.get("type", "default"))
        rope_type = "longrope" if rope_type == "su" else rope_type
        if not isinstance(rope_type, str) or rope_type not in ROPE_TYPES:
            raise ConfigError(
                f"rope_type = {rope_type!r} is not supported", hint=f"Supported: {', '.join(ROPE_TYPES)}."
            )
        names = {field.name for field in dataclasses.fields(cls)}
        for name, value in values.items():
            if name not in names and name not in _OTHERS and value not in (None, False, 1):
                raise ConfigError(f"rope_scaling {name} = {value!r} is not supported")
        settings = {key: value for key, value in values.items() if key in names and value is not None}
        for name in _REQUIRED[rope_type]:
            if name not in settings:
                raise ConfigError(f"rope_scaling of type {rope_type!r} lacks {name!r}")
        lists = {name: tuple(settings[name]) for name in _LISTS if isinstance(settings.get(name), list)}
        scaling = cls(**{**settings, **lists, "rope_type": rope_type})
        scaling.validate()
        return scaling

    def validate(self) -> None:
        """Raises ConfigError naming the setting, its value and what is allowed."""
        for name in _NUMBERS:
            if getattr(self, name) is not None:
                check_number(f"rope_scaling {name}", getattr(self, name), 0.0, _MAX_FACTOR)
        for name in _LISTS:
            if not isinstance(getattr(self, name), tuple):
                raise ConfigError(f"rope_scaling {name} = {getattr(self, name)!r} must be a list of numbers")
            for value in getattr(self, name):
                check_number(f"rope_scaling {name}", value, 0.0, _MAX_FACTOR)
        if self.factor is not None and self.factor < 1.0:
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


@dataclass(frozen=True)
class Rope:
    """Settings by which queries and keys of a layer are rotated; layers with equal settings share tables.

    Attributes:
        size: number of elements at the beginning of each head that are rotated; the others stay as they are.
        theta: base of the frequencies.
        max_position_embeddings: length of the context, in tokens.
        scaling: how positions are scaled.
        interleaved: rotates neighbouring elements (2i, 2i + 1) with each other, instead of i and `i + size / 2`.
    """

    size: int
    theta: float
    max_position_embeddings: int
    scaling: RopeScaling = RopeScaling()
    interleaved: bool = False

    @property
    def context_length(self) -> int:
        """Returns the longest sequence, in tokens, scaling included."""
        kind, factor = self.scaling.rope_type, self.scaling.factor
        if factor is None or kind in ("default", "llama3", "longrope"):
            return self.max_position_embeddings
        return max(
            self.max_position_embeddings,
            int((self.original if kind == "yarn" else self.max_position_embeddings) * factor),
        )

    @property
    def original(self) -> int:
        """Returns the context that the model was first trained on, in tokens."""
        return self.scaling.original_max_position_embeddings or self.max_position_embeddings


def check_number(name: str, value: object, low: float, high: float) -> None:
    """Raises ConfigError for what is no number above `low` and at most `high`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low < value <= high:
        raise ConfigError(f"{name} = {value!r} must be a number above {low:g} and at most {high:g}")
