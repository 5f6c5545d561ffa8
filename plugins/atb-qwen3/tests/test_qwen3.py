# SPDX-License-Identifier: Apache-2.0
"""Qwen3, dense and with experts, passes the conformance kit."""

from __future__ import annotations

from atb_testing import Capability, FamilyTests

CLAIMED = frozenset(
    {
        Capability.TIED_EMBEDDINGS,
        Capability.GROUPED_QUERY,
        Capability.HEAD_DIM,
        Capability.ROPE_SCALING,
        Capability.FLOAT16,
    }
)


class TestQwen3(FamilyTests):
    model_type = "qwen3"
    config = {"head_dim": 16}
    cases = {
        "attention biases": {"attention_bias": True},
        "a sliding window for two layers": {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    }
    capabilities = CLAIMED


class TestQwen3Moe(FamilyTests):
    model_type = "qwen3_moe"
    config = {"head_dim": 16, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
    cases = {
        "weights of the chosen experts that add up to one": {"norm_topk_prob": True},
        "a dense layer among the others": {"mlp_only_layers": [1]},
        "a sliding window": {"use_sliding_window": True, "sliding_window": 8},
    }
    capabilities = CLAIMED | {Capability.EXPERTS}
