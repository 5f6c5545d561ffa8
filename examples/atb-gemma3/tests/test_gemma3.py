# SPDX-License-Identifier: Apache-2.0
"""Gemma 3 compared with Hugging Face's implementation on tiny random checkpoints, by the tests of the kit."""

from __future__ import annotations

from atb_testing import Capability, FamilyTests


class TestGemma3(FamilyTests):
    model_type = "gemma3_text"
    config = {"sliding_window": 5, "sliding_window_pattern": 2}
    cases = {
        "windows only": {"sliding_window_pattern": 100},
        "no window": {"sliding_window_pattern": 1},
        "scale": {"query_pre_attn_scalar": 100},
        "biases": {"attention_bias": True},
    }
    capabilities = frozenset(
        {Capability.TIED_EMBEDDINGS, Capability.GROUPED_QUERY, Capability.HEAD_DIM, Capability.FLOAT16}
    )
