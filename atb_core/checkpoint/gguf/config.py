# SPDX-License-Identifier: Apache-2.0
"""Translates a GGUF file's metadata into the `config.json` of the same model."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gguf.constants import GGMLQuantizationType

from atb_core.checkpoint.files import CheckedFile
from atb_core.checkpoint.gguf.header import GgufHeader, header_of
from atb_core.checkpoint.gguf.quants import PLAIN_TYPES
from atb_core.checkpoint.gguf.rope import rope_config
from atb_core.errors import WeightsError
from atb_core.graph.dtype import DataType

# GGUF key under the architecture's name -> config.json key; all positive integers.
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
_PLAIN_DTYPES = {
    GGMLQuantizationType.F32: DataType.FLOAT,
    GGMLQuantizationType.F16: DataType.FLOAT16,
    GGMLQuantizationType.BF16: DataType.BF16,
}


def read_gguf_config(path: Path) -> dict[str, Any]:
    """Reads the configuration of the model in the GGUF file at `path`, with the keys of a `config.json`.

    `model_type` is the file's `general.architecture`; nothing here knows any family.

    Raises:
        WeightsError: the file is damaged, lacks a needed entry, or describes something not supported.
    """
    with CheckedFile(path) as file:
        return config_from_header(file, header_of(file, texts=False))


def config_from_header(file: CheckedFile, header: GgufHeader) -> dict[str, Any]:
    """Returns the same as `read_gguf_config` for an open file whose header was read."""
    reader = _MetadataReader(file.path, header)
    reader.refuse_parts()
    architecture = reader.text("general.architecture")
    reader.prefix = architecture + "."
    config: dict[str, Any] = {"model_type": architecture, "torch_dtype": gguf_dtype(header).short}
    for key, name in _REQUIRED_SIZES.items():
        config[name] = reader.size(reader.prefix + key)
    heads = config["num_attention_heads"]
    config["num_key_value_heads"] = reader.size(reader.prefix + "attention.head_count_kv", heads)
    config["head_dim"] = _head_dim(reader, config)
    config["rms_norm_eps"] = reader.number(reader.prefix + "attention.layer_norm_rms_epsilon", 1e-6)
    config["vocab_size"] = _vocab_size(reader, config)
    config["tie_word_embeddings"] = "output.weight" not in header.tensors
    config["attention_bias"] = "blk.0.attn_q.bias" in header.tensors
    config["mlp_bias"] = "blk.0.ffn_gate.bias" in header.tensors
    window = header.metadata.get(reader.prefix + "attention.sliding_window")
    if window is not None:
        config["sliding_window"] = reader.size(reader.prefix + "attention.sliding_window")
    config.update(_experts(reader))
    config.update(rope_config(reader.prefix, header.metadata, config, file.path, _frequency_factors(file, header)))
    for key, name in _TOKEN_IDS.items():
        if key in header.metadata:
            config[name] = reader.token_id(key, config["vocab_size"])
    return config


def gguf_dtype(header: GgufHeader) -> DataType:
    """Returns the element type that the model computes in: bfloat16 if any matrix is quantised,
    else the matrices' own type."""
    kinds = {tensor.type for tensor in header.tensors.values() if len(tensor.shape) > 1}
    plain = [kind for kind in PLAIN_TYPES if kind in kinds]
    if len(kinds) == 1 and plain:
        return _PLAIN_DTYPES[plain[0]]
    # A file of F16 with a few matrices kept in F32 is an F16 file.
    return _PLAIN_DTYPES[plain[-1]] if kinds and kinds <= set(PLAIN_TYPES) else DataType.BF16


class _MetadataReader:
    """Reads untrusted metadata with a check of each entry's type."""

    def __init__(self, path: Path, header: GgufHeader) -> None:
        self.path = path
        self.header = header
        self.prefix = ""

    def fail(self, cause: str, hint: str | None = None) -> WeightsError:
        return WeightsError(f"{self.path}: {cause}", hint)

    def _get(self, key: str, default: Any, accept: Callable[[Any], bool], kind: str) -> Any:
        value = self.header.metadata.get(key, default)
        if value is None:
            raise self.fail(f"metadata {key!r} is missing", "The file is not a complete language model.")
        if isinstance(value, list) and value and all(item == value[0] for item in value):
            value = value[0]
        elif isinstance(value, list):
            raise self.fail(f"metadata {key!r} differs from layer to layer, which is not supported")
        if not accept(value):
            raise self.fail(f"metadata {key!r} is {str(value)[:60]!r}, not {kind}")
        return value

    def text(self, key: str) -> str:
        value: str = self._get(key, None, lambda v: isinstance(v, str) and v != "", "a text")
        return value

    def size(self, key: str, default: int | None = None) -> int:
        value: int = self._get(key, default, lambda v: type(v) is int and 0 < v < 1 << 31, "a positive size")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self._get(
            key,
            default,
            lambda v: type(v) in (int, float) and math.isfinite(v) and v > 0,
            "a positive number",
        )
        return float(value)

    def token_id(self, key: str, vocab_size: int) -> int:
        kind = f"an id below the vocabulary's {vocab_size}"
        value: int = self._get(key, None, lambda v: type(v) is int and 0 <= v < vocab_size, kind)
        return value

    def refuse_parts(self) -> None:
        parts = self.header.metadata.get("split.count", 0)
        if type(parts) is int and parts > 1:
            raise self.fail(
                f"the file is one of {parts} parts of a split model",
                "Merge the parts first: llama-gguf-split --merge FIRST_PART OUTPUT.",
            )


def _head_dim(reader: _MetadataReader, config: dict[str, Any]) -> int:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    key, value = reader.prefix + "attention.key_length", reader.prefix + "attention.value_length"
    if key not in reader.header.metadata and hidden % heads:
        raise reader.fail(f"hidden size {hidden} is not a multiple of {heads} heads and {key!r} is missing")
    head_dim = reader.size(key, hidden // heads)
    if reader.size(value, head_dim) != head_dim:
        raise reader.fail(f"{value!r} differs from {key!r}, which is not supported")
    rotated = reader.size(reader.prefix + "rope.dimension_count", head_dim)
    if rotated != head_dim:
        raise reader.fail(f"only {rotated} of {head_dim} dimensions of a head are rotated, which is not supported")
    return head_dim


def _experts(reader: _MetadataReader) -> dict[str, Any]:
    """Returns the entries of a model with experts, whose sizes are those of its tensors."""
    if not reader.header.metadata.get(reader.prefix + "expert_count"):
        return {}
    tensors, layers = reader.header.tensors, reader.size(reader.prefix + "block_count")
    inner = next((tensors[name].shape for name in tensors if name.endswith(".ffn_gate_exps.weight")), ())
    if len(inner) != 3:
        raise reader.fail("it claims to have experts but has no tensors of them under the name of ffn_gate_exps")
    shared = next((tensors[name].shape for name in tensors if name.endswith(".ffn_gate_shexp.weight")), None)
    normed = reader.header.metadata.get(reader.prefix + "expert_weights_norm")
    return {
        "num_experts": reader.size(reader.prefix + "expert_count"),
        "num_experts_per_tok": reader.size(reader.prefix + "expert_used_count"),
        "moe_intermediate_size": inner[1],
        "mlp_only_layers": [n for n in range(layers) if f"blk.{n}.ffn_gate.weight" in tensors],
        **({} if shared is None else {"shared_expert_intermediate_size": shared[0]}),
        **({} if normed is None else {"norm_topk_prob": normed}),
    }


def _vocab_size(reader: _MetadataReader, config: dict[str, Any]) -> int:
    """Returns the rows of the embedding: a declared size or the token list may differ from them."""
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
    import struct

    tensor = header.tensors.get("rope_freqs.weight")
    if tensor is None:
        return None
    if tensor.type != GGMLQuantizationType.F32 or len(tensor.shape) != 1 or tensor.shape[0] > 4096:
        raise WeightsError(f"{file.path}: rope_freqs.weight is not a short vector of F32")
    raw = file.read(tensor.offset, tensor.nbytes, "rope_freqs.weight")
    return list(struct.unpack(f"<{tensor.shape[0]}f", raw))
