# SPDX-License-Identifier: Apache-2.0
"""Configuration: the fields of `config.json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from atb_core.errors import ConfigError
from atb_core.models.base.config import Rope
from atb_core.models.base.window_config import WindowConfig


@dataclass
class Gemma2Config(WindowConfig):
    """Configuration of Gemma 2: a window for every second layer, and caps of scores and logits."""

    model_type: str = "gemma2"
    vocab_size: int = 256000
    head_dim: int | None = 256
    hidden_act: str = "gelu_pytorch_tanh"
    max_position_embeddings: int = 8192
    tie_word_embeddings: bool = True
    query_pre_attn_scalar: float = 256
    sliding_window: int | None = 4096
    attn_logit_softcapping: float | None = 50.0
    final_logit_softcapping: float | None = 30.0

    activations = ("gelu_pytorch_tanh",)
    spellings = {"hidden_activation": "hidden_act"}

    def validate(self) -> None:
        """Raises ConfigError for the first field that has an impossible value."""
        super().validate()
        _check_positive("query_pre_attn_scalar", self.query_pre_attn_scalar)
        for name in ("attn_logit_softcapping", "final_logit_softcapping"):
            if getattr(self, name) is not None:
                _check_positive(name, getattr(self, name))

    def has_window(self, layer_idx: int) -> bool:
        """Returns true for the first layer and each second one after it, if `layer_types` does not say otherwise."""
        return super().has_window(layer_idx) if self.layer_types is not None else layer_idx % 2 == 0


@dataclass
class Gemma3Config(WindowConfig):
    """Configuration of Gemma 3's text models: a window and a rotation of their own for most layers.

    Which layers these are, and how they rotate, is written in two ways: as `layer_types` with one entry of
    `rope_parameters` for each type, or as `sliding_window_pattern` with `rope_local_base_freq`.
    """

    model_type: str = "gemma3_text"
    vocab_size: int = 262208
    head_dim: int | None = 256
    hidden_act: str = "gelu_pytorch_tanh"
    max_position_embeddings: int = 131072
    rope_theta: float = 1e6
    tie_word_embeddings: bool = True
    query_pre_attn_scalar: float = 256
    sliding_window: int | None = 4096
    sliding_window_pattern: int = 6
    rope_local_base_freq: float = 10000.0
    rope_parameters: dict[str, Any] | None = None

    activations = ("gelu_pytorch_tanh",)
    spellings = {"hidden_activation": "hidden_act", "_sliding_window_pattern": "sliding_window_pattern"}
    int_limits = {"sliding_window_pattern": (1, 1024)}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.query_pre_attn_scalar is None and self.head_dim:
            # A GGUF file does not say it: it is the size of a head, but in the model of 62 layers (27B).
            known = self.hidden_size / self.num_attention_heads if self.num_hidden_layers == 62 else self.head_dim
            self.query_pre_attn_scalar = known

    def validate(self) -> None:
        """Raises ConfigError for the first field that has an impossible value."""
        super().validate()
        _check_positive("query_pre_attn_scalar", self.query_pre_attn_scalar)
        for layer in range(self.num_hidden_layers):
            self.rope_of(layer)

    def has_window(self, layer_idx: int) -> bool:
        """Returns true for all layers but each `sliding_window_pattern`-th, if `layer_types` does not say otherwise."""
        if self.layer_types is not None:
            return super().has_window(layer_idx)
        return (layer_idx + 1) % self.sliding_window_pattern != 0

    def rope_of(self, layer_idx: int) -> Rope:
        """Returns the rotation of a layer: of its own kind, by the window."""
        local = self.has_window(layer_idx)
        if self.rope_parameters is None:
            return self.rope({"rope_theta": self.rope_local_base_freq}) if local else self.rope()
        kind = "sliding_attention" if local else "full_attention"
        parameters = self.rope_parameters.get(kind)
        if not isinstance(parameters, dict):
            raise ConfigError(f"rope_parameters has no settings for {kind!r}")
        return self.rope(parameters)


def _check_positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e9:
        raise ConfigError(f"{name} = {value!r} must be a number above 0 and below 1e9")
