# SPDX-License-Identifier: Apache-2.0
"""Tests the specialties of Qwen2 with experts: one of them is every token's, and the bias has a field of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from atb_core.models.runtime.weight_loading import collect_parameters
from atb_qwen2.config import Qwen2MoeConfig
from atb_testing import open_model, tiny_checkpoint

pytest.importorskip("transformers")

EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "num_hidden_layers": 2}


def shapes(directory: Path, **config: Any) -> dict[str, Any]:
    """The shapes of a tiny model's parameters by name."""
    model = open_model(tiny_checkpoint(directory, "qwen2_moe", **EXPERTS, **config))
    return {p.name: p.declared_shape for p in collect_parameters([model])}


def test_every_layer_with_experts_has_one_that_is_shared(tmp_path: Path) -> None:
    found = shapes(tmp_path, shared_expert_intermediate_size=40, mlp_only_layers=[1])
    prefix = "model.layers.0.mlp.shared_expert"
    assert {name: shape for name, shape in found.items() if "shared" in name} == {
        f"{prefix}.gate_proj_up_proj.weight": (80, 64),
        f"{prefix}.down_proj.weight": (64, 40),
        f"{prefix}_gate.weight": (1, 64),
    }


@pytest.mark.parametrize("bias", [False, True])
def test_queries_keys_and_values_have_a_bias_if_qkv_bias(tmp_path: Path, bias: bool) -> None:
    found = shapes(tmp_path, shared_expert_intermediate_size=40, qkv_bias=bias)
    expected = {f"model.layers.{layer}.self_attn.q_proj_k_proj_v_proj.bias" for layer in (0, 1)}
    assert {name for name in found if name.endswith(".bias")} == (expected if bias else set())


@pytest.mark.parametrize(
    ("layers", "windows"),
    [
        ({}, [8, None, 8]),
        ({"max_window_layers": 1}, [8, None, None]),
        ({"layer_types": ["full_attention", "sliding_attention", "full_attention"]}, [None, 8, None]),
        ({"use_sliding_window": False}, [None] * 3),
    ],
)
def test_the_layers_that_have_a_window(layers: dict[str, Any], windows: list[int | None]) -> None:
    values = {"use_sliding_window": True, "sliding_window": 8, "num_hidden_layers": 3, **layers}
    config = Qwen2MoeConfig.from_dict(values)
    assert [config.window_of(layer) for layer in range(3)] == windows
