# SPDX-License-Identifier: Apache-2.0
"""Translates the rotary embedding settings of a GGUF file into `rope_theta` and `rope_scaling`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from atb_core.checkpoint.gguf.metadata import MetadataReader

# Every published model with frequency factors uses these; the factors are recomputed from them and compared.
_LOW_FREQ_FACTOR, _HIGH_FREQ_FACTOR = 1.0, 4.0
_TOLERANCE = 1e-4


def rope_config(reader: MetadataReader, config: Mapping[str, Any], factors: Sequence[float] | None) -> dict[str, Any]:
    """Returns `{"rope_theta": ..., "rope_scaling": ...}` from the file's metadata.

    Args:
        reader: reads the metadata.
        config: the configuration so far; needs `head_dim` and `max_position_embeddings`.
        factors: the file's divisors of the frequencies (`rope_freqs.weight`), or `None`.

    Raises:
        WeightsError: a kind of scaling that is not supported, or an impossible value.
    """
    theta = reader.number("rope.freq_base", 10000.0)
    kind = reader.get("rope.scaling.type", "none")
    original = int(reader.number("rope.scaling.original_context_length", config["max_position_embeddings"]))
    scaling: dict[str, Any] | None
    if factors is not None:
        if kind != "none":
            raise reader.fail(f"both rope_freqs.weight and rope scaling {str(kind)[:40]!r} are present")
        scaling = _llama3_scaling(reader, factors, theta, config)
    elif kind == "none":
        # Early files scale linearly by this key alone.
        linear = reader.number("rope.scale_linear", 1.0)
        scaling = None if linear == 1.0 else {"rope_type": "linear", "factor": linear}
    elif kind == "linear":
        scaling = {"rope_type": "linear", "factor": reader.number("rope.scaling.factor", 1.0)}
    elif kind == "yarn":
        scaling = {
            "rope_type": "yarn",
            "factor": reader.number("rope.scaling.factor", 1.0),
            "original_max_position_embeddings": original,
            "beta_fast": reader.number("rope.scaling.yarn_beta_fast", 32.0),
            "beta_slow": reader.number("rope.scaling.yarn_beta_slow", 1.0),
        }
    else:
        raise reader.fail(f"rope scaling of type {str(kind)[:40]!r} is not supported")
    return {"rope_theta": theta, "rope_scaling": scaling}


def llama3_factors(head_dim: int, theta: float, factor: float, low: float, high: float, original: int) -> list[float]:
    """Returns the divisor of each of the `head_dim / 2` rotation frequencies under llama3 scaling."""
    divisors = []
    for index in range(0, head_dim, 2):
        wavelength = 2 * math.pi * theta ** (index / head_dim)
        # Waves that fit into the original context many times are kept, those that fit a few times are stretched.
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
    reader: MetadataReader, factors: Sequence[float], theta: float, config: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Returns the llama3 parameters that give exactly these divisors."""
    head_dim, longest = config["head_dim"], config["max_position_embeddings"]
    if len(factors) != head_dim // 2 or not all(math.isfinite(f) and f > 0 for f in factors):
        raise reader.fail(f"rope_freqs.weight does not hold {head_dim // 2} positive numbers")
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
    raise reader.fail(
        "rope_freqs.weight does not follow the llama3 rule with the usual parameters",
        "Use the model's safetensors checkpoint, whose configuration names its rule.",
    )
