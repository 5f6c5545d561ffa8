# SPDX-License-Identifier: Apache-2.0
"""Configurations that a family of dense decoders should be tested with: fields of `config.json` by name of the case."""

from __future__ import annotations

from typing import Any

#: Rotary settings, each past the point where it begins to matter: the prompts of `assert_conforms` reach position 38.
ROPE_CASES: dict[str, dict[str, Any]] = {
    "rope default": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
    "rope linear": {"rope_parameters": {"rope_type": "linear", "factor": 2.5, "rope_theta": 1e4}},
    "rope dynamic": {
        "max_position_embeddings": 24,
        "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4},
    },
    "rope llama3": {
        "rope_parameters": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
            "rope_theta": 5e5,
        }
    },
    "rope yarn": {
        "rope_parameters": {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 16,
            "rope_theta": 1e4,
        }
    },
}
SHAPE_CASES: dict[str, dict[str, Any]] = {
    "untied": {"tie_word_embeddings": False},
    "tied": {"tie_word_embeddings": True},
    "one key/value head per head": {"num_attention_heads": 4, "num_key_value_heads": 4},
    "four heads per key/value head": {"num_attention_heads": 8, "num_key_value_heads": 2},
    "seven heads per key/value head": {"hidden_size": 112, "num_attention_heads": 7, "num_key_value_heads": 1},
    "wide heads": {"head_dim": 32},
    "narrow heads": {"head_dim": 6},
    "odd sizes": {
        "vocab_size": 131,
        "hidden_size": 52,
        "head_dim": 14,
        "intermediate_size": 77,
        "num_hidden_layers": 1,
    },
}
CASES: dict[str, dict[str, Any]] = {**SHAPE_CASES, **ROPE_CASES}
