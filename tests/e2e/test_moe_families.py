# SPDX-License-Identifier: Apache-2.0
"""Mixtures of experts generate what Hugging Face's do, whichever way their checkpoint is stored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from atb_core import ModelRunner, SamplingParams
from atb_testing import available_backends, load_reference, tiny_checkpoint
from atb_testing.agreement import greedy_divergences

pytest.importorskip("transformers")

EXPERTS = {"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 32, "num_hidden_layers": 4}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3_moe": ("qwen3_moe", {**EXPERTS, "head_dim": 32, "norm_topk_prob": True}),
    "qwen3_moe, some layers dense": (
        "qwen3_moe",
        {**EXPERTS, "head_dim": 16, "decoder_sparse_step": 2, "mlp_only_layers": [1]},
    ),
    "qwen2_moe": ("qwen2_moe", {**EXPERTS, "shared_expert_intermediate_size": 48}),
    "qwen2_moe, normed, some layers dense": (
        "qwen2_moe",
        {**EXPERTS, "shared_expert_intermediate_size": 48, "norm_topk_prob": True, "mlp_only_layers": [0, 3]},
    ),
}
PROMPTS = [[5, 9, 2, 77, 31], [100], [(7 * i * i + 3) % 203 for i in range(40)]]
SHORT = SamplingParams(max_tokens=12)


@pytest.fixture(autouse=True)
def _one_torch_thread() -> Iterator[None]:
    """Models this small only lose time when torch spreads them over threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def written(directory: Path, name: str, dtype: torch.dtype = torch.float32, **options: Any) -> Path:
    """A tiny random checkpoint of one of `FAMILIES`."""
    model_type, config = FAMILIES[name]
    return tiny_checkpoint(directory, model_type, dtype, **{**config, **options})


def expert_tensors(directory: Path) -> set[str]:
    """Returns the part after `experts.` in the names of a checkpoint's tensors."""
    tensors = load_file(directory / "model.safetensors")
    return {name.partition(".experts.")[2] for name in tensors if ".experts." in name}


def runner_of(path: Path, backend: str = "reference", **options: Any) -> ModelRunner:
    return ModelRunner(path, backend=backend, load_tokenizer=False, max_model_len=128, block_size=16, **options)


@pytest.mark.parametrize("backend", available_backends())
@pytest.mark.parametrize("name", FAMILIES)
def test_64_greedy_tokens_are_hugging_faces(tmp_path: Path, name: str, backend: str) -> None:
    written(tmp_path, name)
    assert greedy_divergences(runner_of(tmp_path, backend), load_reference(tmp_path), PROMPTS, 64) == []


@pytest.mark.parametrize("backend", available_backends())
@pytest.mark.parametrize("name", ["qwen3_moe", "qwen2_moe"])
def test_in_bfloat16_they_part_only_where_both_sides_see_a_draw(tmp_path: Path, name: str, backend: str) -> None:
    written(tmp_path, name, torch.bfloat16)
    found = greedy_divergences(runner_of(tmp_path, backend), load_reference(tmp_path, torch.bfloat16), PROMPTS, 64)
    assert all(divergence.is_close for divergence in found), found


@pytest.mark.parametrize("name", ["qwen3_moe, some layers dense", "qwen2_moe"])
def test_experts_one_by_one_fused_or_in_many_files_are_the_same_model(tmp_path: Path, name: str) -> None:
    written(tmp_path / "one", name)
    written(tmp_path / "shards", name, shards=5)
    load_reference(tmp_path / "one").save_pretrained(tmp_path / "fused", save_original_format=False)
    assert "0.up_proj.weight" in expert_tensors(tmp_path / "one")
    assert expert_tensors(tmp_path / "fused") == {"gate_up_proj", "down_proj"}
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) >= 5
    one, *others = (runner_of(tmp_path / form).generate(PROMPTS, SHORT) for form in ("one", "shards", "fused"))
    for other in others:
        assert [output.token_ids for output in other] == [output.token_ids for output in one]


@pytest.mark.parametrize("family", ["qwen3_moe", "qwen2"])
def test_quantization_says_which_matrices_it_leaves(
    family: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path, family) if family in FAMILIES else tiny_checkpoint(tmp_path, family)
    with caplog.at_level("WARNING"), runner_of(path, "cpu", quantization="int8"):
        pass
    experts = [record.getMessage() for record in caplog.records if "leaves experts" in record.getMessage()]
    if family == "qwen2":
        assert experts == []
        return
    (said,) = experts
    assert said.startswith("quantization='int8' leaves experts as they are: 8 matrices with ")
    assert "model.layers.0.mlp.experts.gate_up_proj, model.layers.0.mlp.experts.down_proj, ..." in said
