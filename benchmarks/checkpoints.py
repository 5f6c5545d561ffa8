# SPDX-License-Identifier: Apache-2.0
"""Random checkpoints with the sizes of real models; speed does not depend on the values of the weights."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


@dataclass(frozen=True)
class Shape:
    """Sizes of a Qwen2-style decoder, named as in `config.json`."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    max_position_embeddings: int = 32768
    tie_word_embeddings: bool = True

    @property
    def head_dim(self) -> int:
        """Returns the size of an attention head."""
        return self.hidden_size // self.num_attention_heads


# Where large checkpoints are kept: writing one takes longer than a measurement.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "atb-benchmarks"
QWEN2_05B = Shape(896, 4864, 24, 14, 2, 151936)
# The same depth with almost nothing to compute, to measure the cost of a step besides its kernels.
NARROW_24 = Shape(64, 128, 24, 2, 2, 512)
DEEP_80 = Shape(64, 128, 80, 2, 2, 512)


def config(shape: Shape) -> dict[str, object]:
    """Returns the `config.json` of a model of this shape."""
    return {
        **asdict(shape),
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "torch_dtype": "bfloat16",
        "use_sliding_window": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }


def write_checkpoint(directory: Path, shape: Shape, dtype: torch.dtype = torch.bfloat16) -> int:
    """Writes a random checkpoint unless it exists, and returns the size of its weights in bytes."""
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / "model.safetensors"
    if not target.exists():
        (directory / "config.json").write_text(json.dumps(config(shape), indent=2))
        partial = target.with_suffix(".partial")
        save_file(_tensors(shape, dtype), partial, metadata={"format": "pt"})
        partial.rename(target)
    return target.stat().st_size


def write_w8a8(source: Path) -> Path:
    """Writes a copy of a checkpoint in compressed-tensors' W8A8 unless it exists, and returns its directory.

    Matrices of layers are int8 with a scale for each output, activations are rounded by a scale for each token. The
    copy lies beside the source, which has its tensors in one file.
    """
    directory = source.with_name(f"{source.name}-w8a8")
    target = directory / "model.safetensors"
    if target.exists():
        return directory
    directory.mkdir(parents=True, exist_ok=True)
    tensors = dict[str, torch.Tensor]()
    for name, value in load_file(source / "model.safetensors").items():
        tensors[name] = value
        if name.endswith("_proj.weight"):
            scale = (value.float().abs().amax(1, keepdim=True) / 127).to(value.dtype)
            tensors[name] = (value.float() / scale.float()).round().clamp(-127, 127).to(torch.int8)
            tensors[f"{name}_scale"] = scale
    eight = {"num_bits": 8, "type": "int", "symmetric": True}
    group = {
        "targets": ["Linear"],
        "weights": {**eight, "strategy": "channel", "dynamic": False},
        "input_activations": {**eight, "strategy": "token", "dynamic": True},
    }
    quantized = {"quant_method": "compressed-tensors", "format": "int-quantized", "config_groups": {"group_0": group}}
    config = json.loads((source / "config.json").read_text())
    config["quantization_config"] = {**quantized, "ignore": ["lm_head"]}
    (directory / "config.json").write_text(json.dumps(config, indent=2))
    partial = target.with_suffix(".partial")
    save_file(tensors, partial, metadata={"format": "pt"})
    partial.rename(target)
    return directory


def write_bfloat16_gguf(source: Path, target: Path) -> Path:
    """Writes a copy of a GGUF file whose matrices are bfloat16, unless it exists, and returns its path."""
    from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType
    from gguf.quants import dequantize, quantize

    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial, reader = target.with_suffix(".partial"), GGUFReader(source)
    writer = GGUFWriter(partial, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        of_items = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], sub_type=of_items)
    writer.add_file_type(LlamaFileType.MOSTLY_BF16)
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type)
        if values.ndim > 1:
            bf16 = GGMLQuantizationType.BF16
            writer.add_tensor(tensor.name, quantize(values, bf16), raw_dtype=bf16)
        else:
            writer.add_tensor(tensor.name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(target)
    return target


def _tensors(shape: Shape, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> torch.Tensor:
        return torch.empty(size, dtype=dtype).normal_(0.0, 0.02, generator=generator)

    hidden, kv = shape.hidden_size, shape.num_key_value_heads * shape.head_dim
    tensors = {
        "model.embed_tokens.weight": normal(shape.vocab_size, hidden),
        "model.norm.weight": torch.ones(hidden, dtype=dtype),
    }
    if not shape.tie_word_embeddings:
        tensors["lm_head.weight"] = normal(shape.vocab_size, hidden)
    for index in range(shape.num_hidden_layers):
        layer = f"model.layers.{index}"
        for name, rows in (("q", hidden), ("k", kv), ("v", kv)):
            tensors[f"{layer}.self_attn.{name}_proj.weight"] = normal(rows, hidden)
            tensors[f"{layer}.self_attn.{name}_proj.bias"] = normal(rows)
        tensors[f"{layer}.self_attn.o_proj.weight"] = normal(hidden, hidden)
        for name in ("gate", "up"):
            tensors[f"{layer}.mlp.{name}_proj.weight"] = normal(shape.intermediate_size, hidden)
        tensors[f"{layer}.mlp.down_proj.weight"] = normal(hidden, shape.intermediate_size)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{layer}.{name}.weight"] = torch.ones(hidden, dtype=dtype)
    return tensors
