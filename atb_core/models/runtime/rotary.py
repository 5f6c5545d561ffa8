# SPDX-License-Identifier: Apache-2.0
"""Inverse frequencies of rotary position embedding, for every supported way of scaling positions.

The order of the float32 operations is that of Hugging Face's implementation, so that tables agree with
its own to the last bit on the same torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from atb_core.models.runtime.protocols import RopeConfig
from atb_core.models.runtime.rope_scaling import RopeScaling


@dataclass(frozen=True)
class Frequencies:
    """`inverse [head_dim / 2]` float32, radians per position; cosine and sine are multiplied by `scaling`."""

    inverse: torch.Tensor
    scaling: float


def rope_frequencies(config: RopeConfig, seq_len: int | None = None) -> Frequencies:
    """The frequencies for a sequence of `seq_len` tokens; only the type `dynamic` depends on it."""
    assert config.head_dim is not None
    scaling = config.rope_scaling or RopeScaling()
    plain = _inverse_frequencies(config.rope_theta, config.head_dim)
    if scaling.rope_type == "linear":
        return Frequencies(plain / _number(scaling.factor), 1.0)
    if scaling.rope_type == "llama3":
        return Frequencies(_llama3(plain, scaling, config.max_position_embeddings), 1.0)
    if scaling.rope_type == "dynamic":
        return Frequencies(_dynamic(config, scaling, seq_len), 1.0)
    if scaling.rope_type == "yarn":
        inverse = _yarn(config, scaling)
        return Frequencies(inverse, _yarn_attention_factor(scaling))
    return Frequencies(plain, 1.0)


def _number(value: float | None) -> float:
    assert value is not None
    return value


def _inverse_frequencies(base: float | torch.Tensor, dim: int) -> torch.Tensor:
    exponents = torch.arange(0, dim, 2, dtype=torch.int64).float() / dim
    return 1.0 / (base**exponents)


def _llama3(plain: torch.Tensor, scaling: RopeScaling, max_positions: int) -> torch.Tensor:
    """Long waves are slowed by `factor`, short ones kept, those between interpolated."""
    original = scaling.original_max_position_embeddings or max_positions
    factor, low, high = (_number(v) for v in (scaling.factor, scaling.low_freq_factor, scaling.high_freq_factor))
    wavelength = 2 * math.pi / plain
    slowed = torch.where(wavelength > original / low, plain / factor, plain)
    smooth = (original / wavelength - low) / (high - low)
    between = (1 - smooth) * slowed / factor + smooth * slowed
    is_between = (wavelength >= original / high) & (wavelength <= original / low)
    return torch.where(is_between, between, slowed)


def _dynamic(config: RopeConfig, scaling: RopeScaling, seq_len: int | None) -> torch.Tensor:
    """Beyond the trained context the base grows with the length of the sequence."""
    assert config.head_dim is not None
    dim, factor, trained = config.head_dim, _number(scaling.factor), config.max_position_embeddings
    # The length enters as a tensor: Hugging Face's arithmetic on it is float32, not Python's float64.
    length = torch.tensor(max(seq_len or 0, trained))
    base = config.rope_theta * ((factor * length / trained) - (factor - 1)) ** (dim / (dim - 2))
    return _inverse_frequencies(base, dim)


def _yarn(config: RopeConfig, scaling: RopeScaling) -> torch.Tensor:
    """Interpolated below, extrapolated above, with a ramp between two numbers of rotations."""
    assert config.head_dim is not None
    dim, base, factor = config.head_dim, config.rope_theta, _number(scaling.factor)
    original = scaling.original_max_position_embeddings or config.max_position_embeddings

    def dimension_of(rotations: float) -> float:
        return (dim * math.log(original / (rotations * 2 * math.pi))) / (2 * math.log(base))

    low, high = dimension_of(scaling.beta_fast or 32), dimension_of(scaling.beta_slow or 1)
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
    factor = _number(scaling.factor)

    def mscale(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    if scaling.mscale and scaling.mscale_all_dim:
        return mscale(scaling.mscale) / mscale(scaling.mscale_all_dim)
    return mscale(1.0)
