# SPDX-License-Identifier: Apache-2.0
"""Tables of rotary position embedding, for every supported way of scaling positions.

The order of the float32 operations is that of Hugging Face's implementation. Powers are computed in float64 and
rounded, because float32 ones differ in the last bit from one processor's library to another's; torch's differ from ours
in one of a hundred.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from atb_core.errors import ConfigError, RequestError
from atb_core.graph.arrays import Array, HostArray, numpy_dtype, to_numpy
from atb_core.graph.dtype import DataType
from atb_core.models.runtime.inputs import bounds
from atb_core.models.runtime.rope_scaling import Rope

# Rows that are computed at a time, for steps to come: about a millisecond.
_ROWS = 256
# An engine that copies tables gets them with this many rows first, then with twice as many.
_COPIED_ROWS = 4096
# Tables have memory for this many rows, and get more when these are used; the system provides it as rows are written.
_CAPACITY = 1 << 17
#: Cosines and sines.
Tables: TypeAlias = "tuple[HostArray, HostArray]"


@dataclass(frozen=True)
class Frequencies:
    """`inverse [size / 2]` float32, radians per position; cosine and sine are multiplied by `scaling`."""

    inverse: Array
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


def _powers(base: float | np.float32, dim: int) -> HostArray:
    """Returns `base ** (2 i / dim)` for i below `dim / 2`."""
    exponents = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    powers: HostArray = (np.float64(base) ** exponents.astype(np.float64)).astype(np.float32)
    return powers


def _inverse_frequencies(base: float | np.float32, dim: int) -> HostArray:
    inverse: HostArray = np.float32(1) / _powers(base, dim)
    return inverse


def _llama3(plain: HostArray, rope: Rope) -> HostArray:
    """Slows long waves by `factor`, keeps short ones and interpolates those between."""
    original, scaling = rope.original, rope.scaling
    factor, low, high = scaling.factor or 1.0, scaling.low_freq_factor, scaling.high_freq_factor
    wavelength = 1 / plain * np.float32(2 * math.pi)
    slowed = np.where(wavelength > original / low, plain / np.float32(factor), plain)
    smooth = (1 / wavelength * np.float32(original) - np.float32(low)) / np.float32(high - low)
    between = (1 - smooth) * slowed / np.float32(factor) + smooth * slowed
    is_between = (wavelength >= original / high) & (wavelength <= original / low)
    mixed: HostArray = np.where(is_between, between, slowed)
    return mixed


def _dynamic(rope: Rope, seq_len: int | None) -> HostArray:
    """Raises the base with the length of a sequence that is longer than the trained context."""
    dim, factor, trained = rope.size, rope.scaling.factor or 1.0, rope.max_position_embeddings
    # Hugging Face's arithmetic on the length is float32, not Python's float64.
    length = np.float32(factor) * np.float32(max(seq_len or 0, trained)) / np.float32(trained)
    grown = np.float32(np.float64(length - np.float32(factor - 1)) ** (dim / (dim - 2)))
    return _inverse_frequencies(np.float32(rope.theta) * grown, dim)


def _longrope(rope: Rope, seq_len: int | None) -> Frequencies:
    """Divides each frequency by its own factor, of one list for short sequences and of another for long ones."""
    original, scaling = rope.original, rope.scaling
    factors = scaling.long_factor if seq_len and seq_len > original else scaling.short_factor
    if len(factors) != rope.size // 2:
        raise ConfigError(
            f"short_factor and long_factor of longrope must have {rope.size // 2} numbers, one has {len(factors)}"
        )
    inverse = np.float32(1) / (np.array(factors, dtype=np.float32) * _powers(rope.theta, rope.size))
    attention, factor = scaling.attention_factor, scaling.factor or rope.max_position_embeddings / original
    if attention is None:
        attention = 1.0 if factor <= 1.0 else math.sqrt(1 + math.log(factor) / math.log(original))
    return Frequencies(inverse, float(attention))


def _yarn(rope: Rope) -> HostArray:
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
    ramp = ((np.arange(dim // 2, dtype=np.float32) - np.float32(low)) / np.float32(high - low)).clip(0, 1)
    keep, one, periods = 1 - ramp, np.float32(1), _powers(base, dim)
    mixed: HostArray = one / (np.float32(scaling.factor or 1.0) * periods) * (1 - keep) + one / periods * keep
    return mixed


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

    Rows are computed as positions come, some more than a step needs, so that no step waits for many.

    Args:
        ropes: the settings of the layers; each gets tables of its own.
        dtype: element type of the tables.
        max_model_len: positions from here on are refused.
        frequencies: computes the frequencies, as `rope_frequencies` does.
        copied: the engine copies tables, so that others are needed for further rows.
    """

    def __init__(
        self,
        ropes: Sequence[Rope],
        dtype: DataType,
        max_model_len: int,
        frequencies: Callable[[Rope, int | None], Frequencies] = rope_frequencies,
        copied: bool = False,
    ) -> None:
        self.ropes = ropes
        self.dtype = numpy_dtype(dtype)
        self.max_model_len = max_model_len
        self._frequencies = frequencies
        self._copied = copied
        self._fixed_until = min((length for length in map(fixed_until, ropes) if length is not None), default=None)
        self._fixed = [frequencies(rope, None) for rope in ropes]
        self._limit = max_model_len if self._fixed_until is None else min(max_model_len, self._fixed_until)
        self._filled = 0
        self._memory: list[Tables] = []
        self._tables: list[Tables] = []
        self._make_room(min(self._limit, _CAPACITY))

    @property
    def depends_on_length(self) -> bool:
        """Returns true if the rotation of a token may depend on the length of its sequence."""
        return self._fixed_until is not None and self.max_model_len > self._fixed_until

    def tables(self, position_ids: Array, input_lengths: Array, is_prefill: bool) -> tuple[list[Tables], Array]:
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
        if high >= self._filled:
            self._grow(high + 1)
        return self._tables, position_ids

    def _make_room(self, rows: int) -> None:
        """Moves the tables into memory for so many rows."""
        memory = []
        for i, rope in enumerate(self.ropes):
            pair = (np.zeros((rows, rope.size), self.dtype), np.zeros((rows, rope.size), self.dtype))
            for new, old in zip(pair, self._memory[i] if self._memory else (), strict=False):
                new[: self._filled] = old[: self._filled]
            memory.append(pair)
        self._memory = self._tables = memory

    def _grow(self, rows: int) -> None:
        rows = max(rows, _COPIED_ROWS, 2 * self._filled) if self._copied else -(-rows // _ROWS) * _ROWS
        rows = min(rows, self._limit)
        if rows > len(self._memory[0][0]):
            self._make_room(min(max(rows, 2 * len(self._memory[0][0])), self._limit))
        for first in range(self._filled, rows, _ROWS):
            new = slice(first, min(first + _ROWS, rows))
            for rope, tables, frequencies in zip(self.ropes, self._memory, self._fixed, strict=True):
                tables[0][new], tables[1][new] = self._compute(rope, np.arange(new.start, new.stop), frequencies)
        self._filled = rows
        if self._copied:
            self._tables = [(cos[:rows], sin[:rows]) for cos, sin in self._memory]

    def _compute(self, rope: Rope, positions: HostArray, frequencies: Frequencies) -> Tables:
        """Returns rows of both tables."""
        # Cosines of float32 differ in the last bit from one processor's library to another's.
        angles = (positions.astype(np.float32)[:, None] * to_numpy(frequencies.inverse)).astype(np.float64)
        scaling = np.float32(frequencies.scaling)
        cos, sin = ((wave(angles).astype(np.float32) * scaling).astype(self.dtype) for wave in (np.cos, np.sin))
        if rope.interleaved:
            return np.repeat(cos, 2, axis=-1), np.repeat(sin, 2, axis=-1)
        return np.concatenate((cos, cos), axis=-1), np.concatenate((sin, sin), axis=-1)

    def _rows_of_tokens(
        self, position_ids: Array, input_lengths: Array, is_prefill: bool
    ) -> tuple[list[Tables], HostArray]:
        lengths, positions = input_lengths.tolist(), to_numpy(position_ids)
        parts = np.split(positions, np.cumsum(lengths)[:-1] if is_prefill else len(positions))
        tables = []
        for rope in self.ropes:
            rows = [self._compute(rope, p, self._frequencies(rope, n)) for p, n in zip(parts, lengths, strict=True)]
            tables.append((np.concatenate([cos for cos, _ in rows]), np.concatenate([sin for _, sin in rows])))
        return tables, np.arange(len(positions))
