# SPDX-License-Identifier: Apache-2.0
"""The configurations under test: fields of `config.json` by name of the case."""

from __future__ import annotations

from typing import Any

from atb_testing.capabilities import Capability

Cases = dict[str, dict[str, Any]]

#: The author's configuration.
BASE = "base"
#: Values for fields of Hugging Face's configuration that its class has turned on: all have an effect on a tiny model.
ACTIVE: dict[str, Any] = {
    "attention_chunk_size": 11,
    "attention_multiplier": 0.4,
    "attn_logit_softcapping": 1.5,
    "embedding_multiplier": 1.5,
    "final_logit_softcapping": 2.0,
    "lm_head_multiplier": 0.6,
    "logit_scale": 0.6,
    "logits_scaling": 1.7,
    "query_pre_attn_scalar": 40,
    "residual_multiplier": 0.6,
    "residual_scale": 0.6,
    "route_scale": 1.7,
    "routed_scaling_factor": 1.7,
    "sliding_window": 11,
}
#: Fields, of the configuration or of its rotary settings, with a length at which the computation changes.
BOUNDARIES = ("sliding_window", "attention_chunk_size", "original_max_position_embeddings")
#: Cases of every family besides its own configuration.
SHAPE_CASES: Cases = {
    "one key/value head per head": {"num_attention_heads": 4, "num_key_value_heads": 4},
    "odd sizes": {
        "vocab_size": 131,
        "hidden_size": 60,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "intermediate_size": 77,
        "num_hidden_layers": 1,
    },
    "another rope base": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
}
#: Rotary settings. Each has an effect below position 36, which the prompts of the comparison reach.
ROPE_CASES: Cases = {
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
#: Cases of a claimed capability.
CAPABILITY_CASES: dict[Capability, Cases] = {
    Capability.TIED_EMBEDDINGS: {"tied": {"tie_word_embeddings": True}},
    Capability.GROUPED_QUERY: {
        "four heads per key/value head": {"num_attention_heads": 8, "num_key_value_heads": 2},
        "seven heads per key/value head": {"hidden_size": 112, "num_attention_heads": 7, "num_key_value_heads": 1},
    },
    Capability.HEAD_DIM: {"wide heads": {"head_dim": 32}, "narrow heads": {"head_dim": 12}},
    Capability.ROPE_SCALING: ROPE_CASES,
}
STANDARD_CASES: Cases = {BASE: {}, **SHAPE_CASES, **{k: v for d in CAPABILITY_CASES.values() for k, v in d.items()}}
