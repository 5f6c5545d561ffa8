# SPDX-License-Identifier: Apache-2.0
"""GGUF files of Qwen models, written by the format's own library from tiny checkpoints."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import gguf
import torch
from safetensors.torch import load_file

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
