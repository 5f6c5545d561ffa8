# SPDX-License-Identifier: Apache-2.0
"""Translates the rotary embedding settings of a GGUF file into `rope_theta` and `rope_scaling`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from atb_core.errors import WeightsError

# What every published model with frequency factors uses; the factors are recomputed and compared before it is believed.
_LOW_FREQ_FACTOR, _HIGH_FREQ_FACTOR = 1.0, 4.0
_TOLERANCE = 1e-4


def rope_config(
    prefix: str,
    metadata: Mapping[str, Any],
    config: Mapping[str, Any],
    path: Path,
    factors: Sequence[float] | None,
) -> dict[str, Any]:
    """Returns `{"rope_theta": ..., "rope_scaling": ...}` from the file's metadata.

    Args:
        prefix: the architecture with a dot.
        metadata: the file's metadata.
        config: what is known already; head_dim and max_position_embeddings are used.
        path: the file, for messages.
        factors: the file's per-frequency divisors (`rope_freqs.weight`), or None.

    Raises:
        WeightsError: a kind of scaling that is not supported, or an impossible value.
    """

    def number(key: str, default: float) -> float:
        value = metadata.get(prefix + key, default)
        if type(value) not in (int, float) or not math.isfinite(value) or value <= 0:
            raise WeightsError(f"{path}: metadata {prefix + key!r} is {str(value)[:60]!r}, not a positive number")
        return float(value)

    theta = number("rope.freq_base", 10000.0)
    kind = metadata.get(prefix + "rope.scaling.type", "none")
    original = int(number("rope.scaling.original_context_length", config["max_position_embeddings"]))
    scaling: dict[str, Any] | None
    if factors is not None:
        if kind != "none":
            raise WeightsError(f"{path}: both rope_freqs.weight and rope scaling {str(kind)[:40]!r} are present")
        scaling = _llama3_scaling(factors, theta, config, path)
    elif kind == "none":
        # Early files scale linearly by this key alone.
        linear = number("rope.scale_linear", 1.0)
        scaling = None if linear == 1.0 else {"rope_type": "linear", "factor": linear}
    elif kind == "linear":
        scaling = {"rope_type": "linear", "factor": number("rope.scaling.factor", 1.0)}
    elif kind == "yarn":
        scaling = {
            "rope_type": "yarn",
            "factor": number("rope.scaling.factor", 1.0),
            "original_max_position_embeddings": original,
            "beta_fast": number("rope.scaling.yarn_beta_fast", 32.0),
            "beta_slow": number("rope.scaling.yarn_beta_slow", 1.0),
        }
    else:
        raise WeightsError(f"{path}: rope scaling of type {str(kind)[:40]!r} is not supported")
    return {"rope_theta": theta, "rope_scaling": scaling}


def llama3_factors(head_dim: int, theta: float, factor: float, low: float, high: float, original: int) -> list[float]:
    """Returns the divisor of each of the `head_dim / 2` rotation frequencies under llama3 scaling."""
    divisors = []
    for index in range(0, head_dim, 2):
        wavelength = 2 * math.pi * theta ** (index / head_dim)
        # How many times the wave fits the original context: many means keep it, few means stretch it.
        turns = original / wavelength
        if turns > high:
            divisors.append(1.0)
        elif turns < low:
            divisors.append(factor)
        else:
            smooth = (turns - low) / (high - low)
            divisors.append(1.0 / ((1.0 - smooth) / factor + smooth))
    return divisors


def _llama3_scaling(
    factors: Sequence[float], theta: float, config: Mapping[str, Any], path: Path
) -> dict[str, Any] | None:
    """Returns the llama3 parameters that give exactly these divisors."""
    head_dim, longest = config["head_dim"], config["max_position_embeddings"]
    if len(factors) != head_dim // 2 or not all(math.isfinite(f) and f > 0 for f in factors):
        raise WeightsError(f"{path}: rope_freqs.weight does not hold {head_dim // 2} positive numbers")
    factor = max(factors)
    if all(abs(f - 1.0) <= _TOLERANCE for f in factors):
        return None
    for original in (8192, *(1 << power for power in range(10, 24) if 1 << power <= longest)):
        expected = llama3_factors(head_dim, theta, factor, _LOW_FREQ_FACTOR, _HIGH_FREQ_FACTOR, original)
        if all(abs(a - b) <= _TOLERANCE * b for a, b in zip(factors, expected, strict=True)):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": _LOW_FREQ_FACTOR,
                "high_freq_factor": _HIGH_FREQ_FACTOR,
                "original_max_position_embeddings": original,
            }
    raise WeightsError(
        f"{path}: rope_freqs.weight does not follow the llama3 rule with the usual parameters",
        "Use the model's safetensors checkpoint, whose configuration names its rule.",
    )
