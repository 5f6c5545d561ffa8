# SPDX-License-Identifier: Apache-2.0
"""A family's GGUF file is the model that its Hugging Face checkpoint is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from e2e.gguf_files import write_gguf

from atb_core import ModelRunner
from atb_core.checkpoint import open_checkpoint
from atb_core.errors import WeightsError
from atb_core.models.base.router import router_of
from atb_testing import load_reference, tiny_checkpoint
from atb_testing.agreement import greedy_divergences

pytest.importorskip("transformers")

Arch = gguf.MODEL_ARCH
EXPERTS = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
FILES: dict[str, tuple[Arch, dict[str, Any]]] = {
    "qwen3": (Arch.QWEN3, {"head_dim": 32, "tie_word_embeddings": True}),
    "qwen3_moe": (Arch.QWEN3MOE, {**EXPERTS, "head_dim": 32, "norm_topk_prob": True}),
    "qwen2_moe": (Arch.QWEN2MOE, {**EXPERTS, "shared_expert_intermediate_size": 48}),
}


@pytest.fixture(autouse=True)
def _one_torch_thread() -> Iterator[None]:
    """Models this small only lose time when torch spreads them over threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("model_type", FILES)
def test_it_generates_what_hugging_face_does(tmp_path: Path, model_type: str) -> None:
    arch, config = FILES[model_type]
    tiny_checkpoint(tmp_path, model_type, **config)
    path = write_gguf(tmp_path, tmp_path / "model.gguf", arch)
    assert router_of(open_checkpoint(path)).model_type == model_type
    runner = ModelRunner(path, backend="reference", load_tokenizer=False)
    prompts = [[5, 9, 2, 77, 31], [(7 * i * i + 3) % 203 for i in range(20)]]
    assert greedy_divergences(runner, load_reference(tmp_path), prompts, 24) == []


def test_the_gate_of_the_shared_expert_may_be_stored_as_a_vector(tmp_path: Path) -> None:
    arch, config = FILES["qwen2_moe"]
    tiny_checkpoint(tmp_path, "qwen2_moe", **config)
    path = write_gguf(tmp_path, tmp_path / "flat.gguf", arch, flat_gate=True)
    runner = ModelRunner(path, backend="reference", load_tokenizer=False)
    assert greedy_divergences(runner, load_reference(tmp_path), [[1, 2, 3]], 8) == []


def test_a_file_whose_experts_are_fewer_than_it_claims_is_refused(tmp_path: Path) -> None:
    arch, config = FILES["qwen3_moe"]
    tiny_checkpoint(tmp_path, "qwen3_moe", **config)
    settings = (tmp_path / "config.json").read_text(encoding="utf-8")
    (tmp_path / "config.json").write_text(settings.replace('"num_local_experts": 5', '"num_local_experts": 6'))
    path = write_gguf(tmp_path, tmp_path / "model.gguf", arch)
    with pytest.raises(WeightsError, match=r"missing: model\.layers\.0\.mlp\.experts\.5\.gate_proj\.weight"):
        ModelRunner(path, backend="reference", load_tokenizer=False)
