# SPDX-License-Identifier: Apache-2.0
"""Translates a GGUF file's metadata into the `config.json` of the same model."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from gguf.constants import GGMLQuantizationType

from atb_core.checkpoint.files import CheckedFile
from atb_core.checkpoint.gguf.header import GgufHeader, header_of
from atb_core.checkpoint.gguf.metadata import MetadataReader
from atb_core.checkpoint.gguf.rope import rope_config
from atb_core.errors import WeightsError
from atb_core.graph.dtype import DataType

# Entry under the architecture's name -> key of config.json; all positive integers.
_REQUIRED_SIZES = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "context_length": "max_position_embeddings",
}
_TOKEN_IDS = {
    "tokenizer.ggml.bos_token_id": "bos_token_id",
    "tokenizer.ggml.eos_token_id": "eos_token_id",
    "tokenizer.ggml.padding_token_id": "pad_token_id",
}
# The types of plain elements; where a file mixes them, the last one that occurs is the model's.
PLAIN_TYPES = {
    GGMLQuantizationType.F32: DataType.FLOAT,
    GGMLQuantizationType.F16: DataType.FLOAT16,
    GGMLQuantizationType.BF16: DataType.BF16,
}


def read_gguf_config(path: Path) -> dict[str, Any]:
    """Reads the configuration of the model in the GGUF file at `path`, with the keys of a `config.json`.

    `model_type` is the file's `general.architecture`; nothing here depends on the family.

    Raises:
        WeightsError: the file is damaged, lacks a needed entry, or describes something not supported.
    """
    with CheckedFile(path) as file:
        return config_from_header(file, header_of(file, texts=False))


def config_from_header(file: CheckedFile, header: GgufHeader) -> dict[str, Any]:
    """Returns the same as `read_gguf_config` for an open file whose header was read."""
    reader = MetadataReader(file.path, header)
    config: dict[str, Any] = {"model_type": reader.architecture, "torch_dtype": gguf_dtype(header).short}
    for key, name in _REQUIRED_SIZES.items():
        config[name] = reader.size(key)
    config["num_key_value_heads"] = reader.size("attention.head_count_kv", config["num_attention_heads"])
    config["head_dim"] = _head_dim(reader, config)
    config["rms_norm_eps"] = reader.number("attention.layer_norm_rms_epsilon", 1e-6)
    config["vocab_size"] = _vocab_size(reader, config)
    config["tie_word_embeddings"] = "output.weight" not in header.tensors
    config["attention_bias"] = "blk.0.attn_q.bias" in header.tensors
    config["mlp_bias"] = "blk.0.ffn_gate.bias" in header.tensors
    if reader.get("attention.sliding_window") is not None:
        config["sliding_window"] = reader.size("attention.sliding_window")
    config.update(_experts(reader))
    config.update(rope_config(reader, config, _frequency_factors(file, header)))
    for key, name in _TOKEN_IDS.items():
        if key in header.metadata:
            config[name] = reader.token_id(key, config["vocab_size"])
    return config


def gguf_dtype(header: GgufHeader) -> DataType:
    """Returns the type that the model computes in: the matrices' own, or bfloat16 if any matrix is quantised."""
    kinds = {tensor.type for tensor in header.tensors.values() if len(tensor.shape) > 1}
    if not kinds or not kinds <= set(PLAIN_TYPES):
        return DataType.BF16
    # A file of F16 with a few matrices kept in F32 is an F16 file.
    return [dtype for kind, dtype in PLAIN_TYPES.items() if kind in kinds][-1]


def _head_dim(reader: MetadataReader, config: dict[str, Any]) -> int:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    key, value = "attention.key_length", "attention.value_length"
    if reader.get(key) is None and hidden % heads:
        raise reader.fail(f"hidden size {hidden} is not a multiple of {heads} heads and {reader.key(key)!r} is missing")
    head_dim = reader.size(key, hidden // heads)
    if reader.size(value, head_dim) != head_dim:
        raise reader.fail(f"{reader.key(value)!r} differs from {reader.key(key)!r}, which is not supported")
    rotated = reader.size("rope.dimension_count", head_dim)
    if rotated != head_dim:
        raise reader.fail(f"only {rotated} of {head_dim} dimensions of a head are rotated, which is not supported")
    return head_dim


def _experts(reader: MetadataReader) -> dict[str, Any]:
    """Returns the entries of a model with experts, whose sizes are those of its tensors."""
    if not reader.get("expert_count"):
        return {}
    tensors, layers = reader.header.tensors, reader.size("block_count")
    inner = next((tensors[name].shape for name in tensors if name.endswith(".ffn_gate_exps.weight")), ())
    if len(inner) != 3:
        raise reader.fail("it claims to have experts but has no tensors of them under the name of ffn_gate_exps")
    shared = next((tensors[name].shape for name in tensors if name.endswith(".ffn_gate_shexp.weight")), None)
    normed = reader.get("expert_weights_norm")
    return {
        "num_experts": reader.size("expert_count"),
        "num_experts_per_tok": reader.size("expert_used_count"),
        "moe_intermediate_size": inner[1],
        "mlp_only_layers": [n for n in range(layers) if f"blk.{n}.ffn_gate.weight" in tensors],
        **({} if shared is None else {"shared_expert_intermediate_size": shared[0]}),
        **({} if normed is None else {"norm_topk_prob": normed}),
    }


def _vocab_size(reader: MetadataReader, config: dict[str, Any]) -> int:
    """Returns the embedding's rows, from which a declared size or the token list may differ."""
    embedding = reader.header.tensors.get("token_embd.weight")
    if embedding is None:
        raise reader.fail("it has no token_embd.weight", "The file is not a complete language model.")
    # These two also catch absurd sizes, before anything is built from them.
    if embedding.shape[1:] != (config["hidden_size"],):
        raise reader.fail(
            f"token_embd.weight has the shape {list(embedding.shape)}, but the embedding length is "
            f"{config['hidden_size']}"
        )
    if config["num_hidden_layers"] > len(reader.header.tensors):
        raise reader.fail(
            f"it claims {config['num_hidden_layers']} layers but has only {len(reader.header.tensors)} tensors"
        )
    return embedding.shape[0]


def _frequency_factors(file: CheckedFile, header: GgufHeader) -> list[float] | None:
    """Returns the values of `rope_freqs.weight`, if the file has it."""
    tensor = header.tensors.get("rope_freqs.weight")
    if tensor is None:
        return None
    if tensor.type != GGMLQuantizationType.F32 or len(tensor.shape) != 1 or tensor.shape[0] > 4096:
        raise WeightsError(f"{file.path}: rope_freqs.weight is not a short vector of F32")
    raw = file.read(tensor.offset, tensor.nbytes, "rope_freqs.weight")
    return list(struct.unpack(f"<{tensor.shape[0]}f", raw))
