# SPDX-License-Identifier: Apache-2.0
"""A family's GGUF file is the model that its Hugging Face checkpoint is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import load_file

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


_EXPERT = re.compile(r"model\.layers\.(\d+)\.mlp\.experts\.(\d+)\.(\w+)_proj\.weight")


def write_gguf(directory: Path, target: Path, arch: gguf.MODEL_ARCH, flat_gate: bool = False) -> Path:
    """The checkpoint in `directory` as one float32 GGUF file.

    Args:
        flat_gate: store the one row of the shared expert's gate as a vector, as some writers do.
    """
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(target, gguf.MODEL_ARCH_NAMES[arch])
    _write_sizes(writer, config)
    names = gguf.get_tensor_name_map(arch, config["num_hidden_layers"])
    for name, tensor in _stacked(load_file(directory / "model.safetensors")).items():
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert stored is not None, name
        values = tensor.numpy()
        writer.add_tensor(stored, values.reshape(-1) if flat_gate and "gate_inp_shexp" in stored else values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _write_sizes(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    heads = config["num_attention_heads"]
    size = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    experts = config.get("num_experts") or config.get("num_local_experts")
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(config["num_experts_per_tok"])
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])


def _stacked(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors with all experts of a layer in one, as GGUF has them."""
    stacked = {name: tensor for name, tensor in tensors.items() if not _EXPERT.fullmatch(name)}
    experts: dict[str, dict[int, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if match := _EXPERT.fullmatch(name):
            layer, number, kind = match.groups()
            experts.setdefault(f"model.layers.{layer}.mlp.experts.{kind}_proj.weight", {})[int(number)] = tensor
    stacked.update({name: torch.stack([parts[n] for n in sorted(parts)]) for name, parts in experts.items()})
    return stacked


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
