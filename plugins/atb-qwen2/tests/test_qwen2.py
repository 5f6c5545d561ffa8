# SPDX-License-Identifier: Apache-2.0
"""Qwen2 passes the conformance kit; and what is special to it."""

from __future__ import annotations

from pathlib import Path

from atb_core.models.runtime.weight_loading import collect_parameters
from atb_testing import Capability, FamilyTests, open_model, tiny_checkpoint

CLAIMED = frozenset(
    {
        Capability.TIED_EMBEDDINGS,
        Capability.GROUPED_QUERY,
        Capability.HEAD_DIM,
        Capability.ROPE_SCALING,
        Capability.FLOAT16,
    }
)


class TestQwen2(FamilyTests):
    model_type = "qwen2"
    cases = {
        "a sliding window for no layer": {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 3},
        "a sliding window for two layers": {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    }
    capabilities = CLAIMED


class TestQwen2Moe(FamilyTests):
    model_type = "qwen2_moe"
    config = {
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 48,
        "shared_expert_intermediate_size": 56,
    }
    cases = {
        "weights of the chosen experts that add up to one": {"norm_topk_prob": True},
        "a dense layer among the others": {"mlp_only_layers": [1]},
        "experts in every other layer": {"decoder_sparse_step": 2},
        "a sliding window": {"use_sliding_window": True, "sliding_window": 8},
    }
    capabilities = CLAIMED | {Capability.EXPERTS}


def test_only_queries_keys_and_values_have_a_bias(tmp_path: Path) -> None:
    model = open_model(tiny_checkpoint(tmp_path, "qwen2", num_hidden_layers=1))
    biases = {p.name for p in collect_parameters([model]) if p.suffix == "bias"}
    assert biases == {"model.layers.0.self_attn.q_proj_k_proj_v_proj.bias"}
