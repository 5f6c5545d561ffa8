# SPDX-License-Identifier: Apache-2.0
"""Qwen2 answers as Hugging Face's implementation does, on tiny random checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from atb_core.errors import ConfigError
from atb_core.models.base.weight_loading import collect_parameters
from atb_core.plugins import config_for, model_for, router_for
from atb_core.testing import CASES, assert_conforms, open_model, tiny_checkpoint
from atb_qwen2.config import Qwen2Config
from atb_qwen2.flash_causal_lm import FlashQwen2ForCausalLMV3
from atb_qwen2.router import Qwen2Router

pytest.importorskip("transformers")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_logits_are_as_close_to_the_truth_as_torchs(tmp_path: Path, case: str, dtype: torch.dtype) -> None:
    assert_conforms(tiny_checkpoint(tmp_path, "qwen2", dtype, **CASES[case]))


def test_float16_and_several_shards(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path, "qwen2", torch.float16, shards=3)
    assert len(list(tmp_path.glob("*.safetensors"))) >= 3
    assert_conforms(tmp_path)


def test_the_package_is_found_by_model_type() -> None:
    assert router_for("qwen2") is Qwen2Router
    assert config_for("qwen2") is Qwen2Config
    assert model_for("qwen2") is FlashQwen2ForCausalLMV3


def test_only_queries_keys_and_values_have_a_bias(tmp_path: Path) -> None:
    model = open_model(tiny_checkpoint(tmp_path, "qwen2", num_hidden_layers=1))
    biases = {p.name for p in collect_parameters([model]) if p.suffix == "bias"}
    assert biases == {"model.layers.0.self_attn.q_proj_k_proj_v_proj.bias"}


def test_a_sliding_window_is_refused_by_name(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path, "qwen2", use_sliding_window=True, sliding_window=8, max_window_layers=1)
    with pytest.raises(ConfigError, match="use_sliding_window = true"):
        open_model(tmp_path)


def test_a_sliding_window_for_no_layer_is_none(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path, "qwen2", use_sliding_window=True, sliding_window=8, max_window_layers=3)
    assert_conforms(tmp_path, ["reference"])
