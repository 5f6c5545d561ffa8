# SPDX-License-Identifier: Apache-2.0
"""Tables of rotary position embedding, for every supported way of scaling positions.

The order of the float32 operations is that of Hugging Face's implementation, so that tables agree with
its own to the last bit on the same torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch

from atb_core.errors import RequestError
from atb_core.models.runtime.rope_scaling import RopeScaling

# A table starts with this many positions and doubles, so that a long context costs memory only when used.
_FIRST_ROWS = 4096


class RopeConfig(Protocol):
    """The fields of a configuration that define rotary positions; `BaseConfig` has them."""

    head_dim: int | None
    max_position_embeddings: int
    rope_theta: float
    rope_scaling: RopeScaling | None


@dataclass(frozen=True)
class Frequencies:
    """`inverse [head_dim / 2]` float32, radians per position; cosine and sine are multiplied by `scaling`."""

    inverse: torch.Tensor
    scaling: float


def rope_frequencies(config: RopeConfig, seq_len: int | None = None) -> Frequencies:
    """Returns the frequencies for a sequence of `seq_len` tokens; only the type `dynamic` depends on it."""
    scaling = config.rope_scaling or RopeScaling()
    plain = _inverse_frequencies(config.rope_theta, config.head_dim or 0)
    if scaling.rope_type == "linear":
        return Frequencies(plain / scaling.factor, 1.0)
    if scaling.rope_type == "llama3":
        return Frequencies(_llama3(plain, scaling, config.max_position_embeddings), 1.0)
    if scaling.rope_type == "dynamic":
        return Frequencies(_dynamic(config, scaling, seq_len), 1.0)
    if scaling.rope_type == "yarn":
        return Frequencies(_yarn(config, scaling), _yarn_attention_factor(scaling))
    return Frequencies(plain, 1.0)


def _inverse_frequencies(base: float | torch.Tensor, dim: int) -> torch.Tensor:
    exponents = torch.arange(0, dim, 2, dtype=torch.int64).float() / dim
    return 1.0 / (base**exponents)


def _llama3(plain: torch.Tensor, scaling: RopeScaling, max_positions: int) -> torch.Tensor:
    """Slows long waves by `factor`, keeps short ones and interpolates those between."""
    original = scaling.original_max_position_embeddings or max_positions
    factor, low, high = scaling.factor, scaling.low_freq_factor, scaling.high_freq_factor
    wavelength = 2 * math.pi / plain
    slowed = torch.where(wavelength > original / low, plain / factor, plain)
    smooth = (original / wavelength - low) / (high - low)
    between = (1 - smooth) * slowed / factor + smooth * slowed
    is_between = (wavelength >= original / high) & (wavelength <= original / low)
    return torch.where(is_between, between, slowed)


def _dynamic(config: RopeConfig, scaling: RopeScaling, seq_len: int | None) -> torch.Tensor:
    """Raises the base with the length of a sequence that is longer than the trained context."""
    dim, factor, trained = config.head_dim or 0, scaling.factor, config.max_position_embeddings
    # The length enters as a tensor: Hugging Face's arithmetic on it is float32, not Python's float64.
    length = torch.tensor(max(seq_len or 0, trained))
    base = config.rope_theta * ((factor * length / trained) - (factor - 1)) ** (dim / (dim - 2))
    return _inverse_frequencies(base, dim)


def _yarn(config: RopeConfig, scaling: RopeScaling) -> torch.Tensor:
    """Interpolates slow dimensions and keeps fast ones, with a ramp between two numbers of rotations."""
    dim, base, factor = config.head_dim or 0, config.rope_theta, scaling.factor
    original = scaling.original_max_position_embeddings or config.max_position_embeddings

    def dimension_of(rotations: float) -> float:
        return (dim * math.log(original / (rotations * 2 * math.pi))) / (2 * math.log(base))

    low, high = dimension_of(scaling.beta_fast), dimension_of(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001
    ramp = ((torch.arange(dim // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    keep = 1 - ramp
    periods = base ** (torch.arange(0, dim, 2).float() / dim)
    return 1.0 / (factor * periods) * (1 - keep) + 1.0 / periods * keep


def _yarn_attention_factor(scaling: RopeScaling) -> float:
    if scaling.attention_factor is not None:
        return float(scaling.attention_factor)

    def mscale(weight: float) -> float:
        return 1.0 if scaling.factor <= 1 else 0.1 * weight * math.log(scaling.factor) + 1.0

    if scaling.mscale and scaling.mscale_all_dim:
        return mscale(scaling.mscale) / mscale(scaling.mscale_all_dim)
    return mscale(1.0)


class PositionEmbedding:
    """Tables `[positions, head_dim]` in the model's dtype, both halves filled; cosines are computed in float32.

    Args:
        max_model_len: positions from here on are refused.
    """

    def __init__(self, config: RopeConfig, dtype: torch.dtype, max_model_len: int) -> None:
        self.config = config
        self.dtype = dtype
        self.max_model_len = max_model_len
        self._frequencies = rope_frequencies(config)
        scaling = config.rope_scaling
        # `dynamic` frequencies depend on a sequence's length beyond this many tokens; others are fixed.
        self._fixed_until = config.max_position_embeddings if scaling and scaling.rope_type == "dynamic" else None
        self._cos = self._sin = torch.empty(0, config.head_dim or 0, dtype=dtype)

    def tables(
        self, position_ids: torch.Tensor, input_lengths: torch.Tensor, is_prefill: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns cosines, sines and the row of each token in them.

        Normally these are the growing tables and `position_ids` itself. With rope type `dynamic` and a sequence
        longer than the trained context, every token gets a row of its own, computed for the present length of its
        sequence, as Hugging Face computes it for the sequence alone. As there, keys in the cache keep the rotation of
        the step that wrote them.

        Args:
            position_ids: `[T]` int64.
            input_lengths: `[B]`, tokens of each sequence in prefill, context length in decode.
            is_prefill: the phase.

        Raises:
            RequestError: a position is negative or not below `max_model_len`.
        """
        if position_ids.numel() == 0:
            raise RequestError("a step needs at least one token")
        low, high = (int(value) for value in torch.aminmax(position_ids))
        if low < 0 or high >= self.max_model_len:
            raise RequestError(
                f"position {low if low < 0 else high} is outside of the context of {self.max_model_len} tokens",
                hint="Shorten the prompt, ask for fewer tokens, or raise max_model_len.",
            )
        if self._fixed_until is not None and high >= self._fixed_until:
            return self._rows_of_tokens(position_ids, input_lengths, is_prefill)
        if high >= len(self._cos):
            self._grow(high + 1)
        return self._cos, self._sin, position_ids

    def _grow(self, rows: int) -> None:
        rows = min(max(rows, _FIRST_ROWS, 2 * len(self._cos)), self.max_model_len)
        if self._fixed_until is not None:
            rows = min(rows, self._fixed_until)
        new = torch.arange(len(self._cos), rows)
        cos, sin = self._compute(new, self._frequencies)
        self._cos, self._sin = torch.cat((self._cos, cos)), torch.cat((self._sin, sin))

    def _compute(self, positions: torch.Tensor, frequencies: Frequencies) -> tuple[torch.Tensor, torch.Tensor]:
        angles = positions[:, None].float() * frequencies.inverse
        cos = (angles.cos() * frequencies.scaling).to(self.dtype)
        sin = (angles.sin() * frequencies.scaling).to(self.dtype)
        return torch.cat((cos, cos), dim=-1), torch.cat((sin, sin), dim=-1)

    def _rows_of_tokens(
        self, position_ids: torch.Tensor, input_lengths: torch.Tensor, is_prefill: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        tokens = len(position_ids)
        cos = torch.empty(tokens, self.config.head_dim or 0, dtype=self.dtype)
        sin = torch.empty_like(cos)
        start = 0
        for length in input_lengths.tolist():
            stop = start + (length if is_prefill else 1)
            frequencies = rope_frequencies(self.config, length)
            cos[start:stop], sin[start:stop] = self._compute(position_ids[start:stop], frequencies)
            start = stop
        return cos, sin, torch.arange(tokens)
