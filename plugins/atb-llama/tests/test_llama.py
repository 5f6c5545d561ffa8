# SPDX-License-Identifier: Apache-2.0
"""Llama answers as Hugging Face's implementation does, on tiny random checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from atb_core.errors import ConfigError
from atb_core.plugins import config_for, model_for, router_for
from atb_core.testing import CASES, assert_conforms, tiny_checkpoint
from atb_llama.config import LlamaConfig
from atb_llama.flash_causal_lm import FlashLlamaForCausalLMV3
from atb_llama.router import LlamaRouter

pytest.importorskip("transformers")

ALL_CASES: dict[str, dict[str, Any]] = {
    **CASES,
    "all biases": {"attention_bias": True, "mlp_bias": True},
    "attention biases": {"attention_bias": True},
    "feed-forward biases": {"mlp_bias": True},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", ALL_CASES)
def test_logits_are_as_close_to_the_truth_as_torchs(tmp_path: Path, case: str, dtype: torch.dtype) -> None:
    assert_conforms(tiny_checkpoint(tmp_path, "llama", dtype, **ALL_CASES[case]))


def test_float16_and_several_shards(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path, "llama", torch.float16, shards=3)
    assert len(list(tmp_path.glob("*.safetensors"))) >= 3
    assert_conforms(tmp_path)


def test_the_package_is_found_by_model_type() -> None:
    assert router_for("llama") is LlamaRouter
    assert config_for("llama") is LlamaConfig
    assert model_for("llama") is FlashLlamaForCausalLMV3


def test_queries_and_keys_of_gguf_files_are_put_back_into_order() -> None:
    assert LlamaRouter.gguf is not None
    assert LlamaRouter.gguf.permuted_qk


def test_a_sliding_window_shorter_than_the_context_is_refused() -> None:
    assert LlamaConfig.from_dict({"sliding_window": 2048}).max_position_embeddings == 2048
    with pytest.raises(ConfigError, match="sliding_window = 512"):
        LlamaConfig.from_dict({"sliding_window": 512})
