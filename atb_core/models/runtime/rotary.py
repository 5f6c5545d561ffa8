# SPDX-License-Identifier: Apache-2.0
"""Tables of rotary position embedding, for every supported way of scaling positions.

The order of the float32 operations is that of Hugging Face's implementation, so that tables agree with
its own to the last bit on the same torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch

from atb_core.errors import ConfigError, RequestError
from atb_core.models.runtime.inputs import bounds
from atb_core.models.runtime.rope_scaling import Rope

# A table starts with this many positions and doubles, so that a long context costs memory only when used.
_FIRST_ROWS = 4096
#: Cosines and sines.
Tables: TypeAlias = "tuple[torch.Tensor, torch.Tensor]"
#: The same as integers with the bits of the model's dtype.
Rows: TypeAlias = "tuple[np.ndarray, np.ndarray]"


@dataclass(frozen=True)
class Frequencies:
    """`inverse [size / 2]` float32, radians per position; cosine and sine are multiplied by `scaling`."""

    inverse: torch.Tensor
    scaling: float = 1.0


def rope_frequencies(rope: Rope, seq_len: int | None = None) -> Frequencies:
    """Returns the frequencies for a sequence of `seq_len` tokens; only `dynamic` and `longrope` depend on it."""
    kind, scaling = rope.scaling.rope_type, rope.scaling
    plain = _inverse_frequencies(rope.theta, rope.size)
    if kind == "linear":
        return Frequencies(plain / (scaling.factor or 1.0))
    if kind == "llama3":
        return Frequencies(_llama3(plain, rope))
    if kind == "dynamic":
        return Frequencies(_dynamic(rope, seq_len))
    if kind == "yarn":
        return Frequencies(_yarn(rope), _yarn_attention_factor(rope))
    if kind == "longrope":
        return _longrope(rope, seq_len)
    return Frequencies(plain)


def fixed_until(rope: Rope) -> int | None:
    """Returns the length up to which frequencies are the same for all sequences; `None` if they always are."""
    return {"dynamic": rope.max_position_embeddings, "longrope": rope.original}.get(rope.scaling.rope_type)


def _inverse_frequencies(base: float | torch.Tensor, dim: int) -> torch.Tensor:
    exponents = torch.arange(0, dim, 2, dtype=torch.int64).float() / dim
    return 1.0 / (base**exponents)


def _llama3(plain: torch.Tensor, rope: Rope) -> torch.Tensor:
    """Slows long waves by `factor`, keeps short ones and interpolates those between."""
    original, scaling = rope.original, rope.scaling
    factor, low, high = scaling.factor or 1.0, scaling.low_freq_factor, scaling.high_freq_factor
    wavelength = 2 * math.pi / plain
    slowed = torch.where(wavelength > original / low, plain / factor, plain)
    smooth = (original / wavelength - low) / (high - low)
    between = (1 - smooth) * slowed / factor + smooth * slowed
    is_between = (wavelength >= original / high) & (wavelength <= original / low)
    return torch.where(is_between, between, slowed)


def _dynamic(rope: Rope, seq_len: int | None) -> torch.Tensor:
    """Raises the base with the length of a sequence that is longer than the trained context."""
    dim, factor, trained = rope.size, rope.scaling.factor or 1.0, rope.max_position_embeddings
    # The length enters as a tensor: Hugging Face's arithmetic on it is float32, not Python's float64.
    length = torch.tensor(max(seq_len or 0, trained))
    base = rope.theta * ((factor * length / trained) - (factor - 1)) ** (dim / (dim - 2))
    return _inverse_frequencies(base, dim)


def _longrope(rope: Rope, seq_len: int | None) -> Frequencies:
    """Divides each frequency by its own factor, of one list for short sequences and of another for long ones."""
    original, scaling = rope.original, rope.scaling
    factors = scaling.long_factor if seq_len and seq_len > original else scaling.short_factor
    if len(factors) != rope.size // 2:
        raise ConfigError(
            f"short_factor and long_factor of longrope must have {rope.size // 2} numbers, one has {len(factors)}"
        )
    exponents = torch.arange(0, rope.size, 2, dtype=torch.int64).float() / rope.size
    inverse = 1.0 / (torch.tensor(factors, dtype=torch.float32) * rope.theta**exponents)
    attention, factor = scaling.attention_factor, scaling.factor or rope.max_position_embeddings / original
    if attention is None:
        attention = 1.0 if factor <= 1.0 else math.sqrt(1 + math.log(factor) / math.log(original))
    return Frequencies(inverse, float(attention))


def _yarn(rope: Rope) -> torch.Tensor:
    """Interpolates slow dimensions and keeps fast ones, with a ramp between two numbers of rotations."""
    dim, base, scaling = rope.size, rope.theta, rope.scaling

    def dimension_of(rotations: float) -> float:
        return (dim * math.log(rope.original / (rotations * 2 * math.pi))) / (2 * math.log(base))

    low, high = dimension_of(scaling.beta_fast), dimension_of(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001
    ramp = ((torch.arange(dim // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    keep = 1 - ramp
    periods = base ** (torch.arange(0, dim, 2).float() / dim)
    return 1.0 / ((scaling.factor or 1.0) * periods) * (1 - keep) + 1.0 / periods * keep


def _yarn_attention_factor(rope: Rope) -> float:
    scaling, factor = rope.scaling, rope.scaling.factor or 1.0
    if scaling.attention_factor is not None:
        return float(scaling.attention_factor)

    def mscale(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    if scaling.mscale and scaling.mscale_all_dim:
        return mscale(scaling.mscale) / mscale(scaling.mscale_all_dim)
    return mscale(1.0)


class PositionEmbedding:
    """Tables `[positions, size]` in the model's dtype; cosines are computed in float64, so that all machines agree.

    Args:
        ropes: the settings of the layers; each gets tables of its own.
        max_model_len: positions from here on are refused.
        frequencies: computes the frequencies, as `rope_frequencies` does.
    """

    def __init__(
        self,
        ropes: Sequence[Rope],
        dtype: torch.dtype,
        max_model_len: int,
        frequencies: Callable[[Rope, int | None], Frequencies] = rope_frequencies,
    ) -> None:
        self.ropes = ropes
        self.dtype = dtype
        self._bits = torch.int32 if dtype is torch.float32 else torch.int16
        self.max_model_len = max_model_len
        self._frequencies = frequencies
        self._fixed_until = min((length for length in map(fixed_until, ropes) if length is not None), default=None)
        self._fixed = [frequencies(rope, None) for rope in ropes]
        self._tables: list[Tables] = [(torch.empty(0, rope.size, dtype=dtype),) * 2 for rope in ropes]

    @property
    def depends_on_length(self) -> bool:
        """Returns true if the rotation of a token may depend on the length of its sequence."""
        return self._fixed_until is not None and self.max_model_len > self._fixed_until

    def tables(
        self, position_ids: torch.Tensor, input_lengths: torch.Tensor, is_prefill: bool
    ) -> tuple[list[Tables], torch.Tensor]:
        """Returns cosines and sines for each of the settings, and the row of each token in all of them.

        Normally these are the growing tables and `position_ids` itself. With `dynamic` and `longrope` and a sequence
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
        low, high = bounds(position_ids)
        if low < 0 or high >= self.max_model_len:
            raise RequestError(
                f"position {low if low < 0 else high} is outside of the context of {self.max_model_len} tokens",
                hint="Shorten the prompt, ask for fewer tokens, or raise max_model_len.",
            )
        if self._fixed_until is not None and high >= self._fixed_until:
            return self._rows_of_tokens(position_ids, input_lengths, is_prefill)
        if high >= len(self._tables[0][0]):
            self._grow(high + 1)
        return self._tables, position_ids

    def _grow(self, rows: int) -> None:
        present = len(self._tables[0][0])
        rows = min(max(rows, _FIRST_ROWS, 2 * present), self.max_model_len)
        if self._fixed_until is not None:
            rows = min(rows, self._fixed_until)
        new = np.arange(present, rows)
        for i, rope in enumerate(self.ropes):
            old = [table.view(self._bits).numpy() for table in self._tables[i]]
            self._tables[i] = self._joined([(old[0], old[1]), self._compute(rope, new, self._fixed[i])])

    def _compute(self, rope: Rope, positions: np.ndarray, frequencies: Frequencies) -> Rows:
        """Returns rows of both tables; in numpy, because a forked child waits for ever for torch's threads."""
        # Cosines of float32 differ in the last bit from one processor's library to another's.
        angles = (positions.astype(np.float32)[:, None] * frequencies.inverse.numpy(force=True)).astype(np.float64)
        scaling = np.float32(frequencies.scaling)
        cos, sin = (self._rounded(wave(angles).astype(np.float32) * scaling) for wave in (np.cos, np.sin))
        if rope.interleaved:
            return np.repeat(cos, 2, axis=-1), np.repeat(sin, 2, axis=-1)
        return np.concatenate((cos, cos), axis=-1), np.concatenate((sin, sin), axis=-1)

    def _rounded(self, values: np.ndarray) -> np.ndarray:
        """Returns float32 values in the model's dtype, as integers: numpy has no bfloat16."""
        if self.dtype is torch.bfloat16:
            bits = values.view(np.uint32)
            return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16).view(np.int16)
        return values.astype(np.float16).view(np.int16) if self.dtype is torch.float16 else values.view(np.int32)

    def _joined(self, parts: Sequence[Rows]) -> Tables:
        cos, sin = (np.concatenate(tables) for tables in zip(*parts, strict=True))
        return torch.from_numpy(cos).view(self.dtype), torch.from_numpy(sin).view(self.dtype)

    def _rows_of_tokens(
        self, position_ids: torch.Tensor, input_lengths: torch.Tensor, is_prefill: bool
    ) -> tuple[list[Tables], torch.Tensor]:
        lengths, positions = input_lengths.tolist(), position_ids.numpy(force=True)
        parts = np.split(positions, np.cumsum(lengths)[:-1] if is_prefill else len(positions))
        tables = [
            self._joined(
                [self._compute(rope, p, self._frequencies(rope, n)) for p, n in zip(parts, lengths, strict=True)]
            )
            for rope in self.ropes
        ]
        return tables, torch.from_numpy(np.arange(len(positions)))
