# SPDX-License-Identifier: Apache-2.0
"""Translates a GGUF file's metadata into the `config.json` of the same model."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gguf.constants import GGMLQuantizationType

from atb_core.checkpoint import FormatRules
from atb_core.errors import WeightsError
from atb_core.graph import DataType
from atb_gguf.file import GgufFile
from atb_gguf.header import GgufHeader

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
# How a file says that there is no such token: by no entry, or by -1, with or without a sign.
ABSENT_IDS = (None, -1, 0xFFFFFFFF)
# The types of plain elements; where a file mixes them, the last one that occurs is the model's.
PLAIN_TYPES = {
    GGMLQuantizationType.F32: DataType.FLOAT,
    GGMLQuantizationType.F16: DataType.FLOAT16,
    GGMLQuantizationType.BF16: DataType.BF16,
}
# Entries that say the same as others or as the tensors, or only how the file was made.
_MEANINGLESS = frozenset(
    {
        "vocab_size", "tensor_data_layout", "rope.scaling.finetuned", "rope.scaling.original_context_length",
        "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow", "expert_used_count", "expert_shared_count",
        "expert_feed_forward_length", "expert_shared_feed_forward_length", "leading_dense_block_count",
    }
)  # fmt: skip
# Factors, and the gating function softmax, which is so where nothing is said.
_NEUTRAL_AT_ONE = ("scale", "factor", "expert_gating_func")
# Every published model with frequency factors uses these; the factors are recomputed from them and compared.
_LOW_FREQ_FACTOR, _HIGH_FREQ_FACTOR = 1.0, 4.0
_TOLERANCE = 1e-4


def read_gguf_config(path: Path) -> dict[str, Any]:
    """Reads the configuration of the model in the GGUF file at `path`, with the keys of a `config.json`.

    `model_type` is the file's `general.architecture`; nothing here depends on the family, whose rules may add to it.

    Raises:
        WeightsError: the file is damaged, lacks a needed entry, or describes something not supported.
    """
    with GgufFile(path, texts=False) as file:
        return config_of(file)[0]


def config_of(file: GgufFile) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns what `read_gguf_config` does, and the architecture's metadata of which it says nothing."""
    header, reader = file.header, _Metadata(file.path, file.header)
    config: dict[str, Any] = {"model_type": reader.architecture, "torch_dtype": gguf_dtype(header).short}
    for key, name in _REQUIRED_SIZES.items():
        config[name] = reader.size(key)
    if reader.get("nextn_predict_layers"):
        # The layers that predict further tokens are counted among the blocks.
        config["num_nextn_predict_layers"] = reader.size("nextn_predict_layers")
        config["num_hidden_layers"] -= config["num_nextn_predict_layers"]
    config["num_key_value_heads"] = reader.size("attention.head_count_kv", config["num_attention_heads"])
    config["head_dim"] = _head_dim(reader, config)
    rotated = reader.size("rope.dimension_count", config["head_dim"])
    if rotated != config["head_dim"]:
        config["partial_rotary_factor"] = rotated / config["head_dim"]
    epsilon, of_means = "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"
    if reader.get(epsilon) is None and reader.get(of_means) is not None:
        epsilon = of_means
    config["rms_norm_eps"] = reader.number(epsilon)
    config["vocab_size"] = _vocab_size(reader, config)
    config["tie_word_embeddings"] = "output.weight" not in header.tensors
    config["attention_bias"] = "blk.0.attn_q.bias" in header.tensors
    config["mlp_bias"] = "blk.0.ffn_up.bias" in header.tensors
    if reader.get("attention.sliding_window") is not None:
        config["sliding_window"] = reader.size("attention.sliding_window")
    config.update(_experts(reader))
    config.update(_rope(reader, config, _frequency_factors(file)))
    for key, name in _TOKEN_IDS.items():
        if key in header.metadata:
            absent = header.metadata[key] in ABSENT_IDS
            config[name] = None if absent else reader.token_id(key, config["vocab_size"])
    return config, reader.unread()


def declared_config(unread: Mapping[str, Any], rules: FormatRules, path: Path) -> dict[str, Any]:
    """Returns the entries of the configuration that the family's rules make of further metadata.

    Raises:
        WeightsError: metadata that change what the model computes are not among them.
    """
    refused = [f"{name} = {str(value)[:60]}" for name, value in unread.items() if name not in rules.metadata]
    if refused:
        raise WeightsError(
            f"{path} has metadata of unknown meaning for its model: {', '.join(refused[:6])}",
            "The family's plugin has to name them (FormatRules.metadata); look for a newer version of it.",
        )
    return {rules.metadata[name]: value for name, value in unread.items()}


def gguf_dtype(header: GgufHeader) -> DataType:
    """Returns the type that the model computes in: the matrices' own, or bfloat16 if any matrix is quantised."""
    kinds = {tensor.type for tensor in header.tensors.values() if len(tensor.shape) > 1}
    if not kinds or not kinds <= set(PLAIN_TYPES):
        return DataType.BF16
    # A file of F16 with a few matrices kept in F32 is an F16 file.
    return [dtype for kind, dtype in PLAIN_TYPES.items() if kind in kinds][-1]


def _head_dim(reader: _Metadata, config: dict[str, Any]) -> int:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    key, value = "attention.key_length", "attention.value_length"
    if reader.get(key) is None and hidden % heads:
        raise reader.fail(f"hidden size {hidden} is not a multiple of {heads} heads and {reader.key(key)!r} is missing")
    head_dim = reader.size(key, hidden // heads)
    if reader.size(value, head_dim) != head_dim:
        raise reader.fail(f"{reader.key(value)!r} differs from {reader.key(key)!r}, which is not supported")
    return head_dim


def _experts(reader: _Metadata) -> dict[str, Any]:
    """Returns the entries of a model with experts, whose sizes are those of its tensors."""
    if not reader.get("expert_count"):
        return {}
    tensors, layers = reader.header.tensors, reader.size("block_count")
    inner = next((tensors[name].shape for name in tensors if name.endswith(".ffn_gate_exps.weight")), ())
    if len(inner) != 3:
        raise reader.fail("it claims to have experts but has no tensors of them under the name of ffn_gate_exps")
    # One without a gate of its own has another name in each family.
    gated = any(name.endswith(".ffn_gate_inp_shexp.weight") for name in tensors)
    shared = next((tensors[name].shape for name in tensors if gated and name.endswith(".ffn_gate_shexp.weight")), None)
    normed = reader.get("expert_weights_norm")
    return {
        "num_experts": reader.size("expert_count"),
        "num_experts_per_tok": reader.size("expert_used_count"),
        "moe_intermediate_size": inner[1],
        "mlp_only_layers": [n for n in range(layers) if f"blk.{n}.ffn_gate.weight" in tensors],
        **({} if shared is None else {"shared_expert_intermediate_size": shared[0]}),
        **({} if normed is None else {"norm_topk_prob": normed}),
    }


def _vocab_size(reader: _Metadata, config: dict[str, Any]) -> int:
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


def _frequency_factors(file: GgufFile) -> list[float] | None:
    """Returns the values of `rope_freqs.weight`, if the file has it."""
    tensor = file.header.tensors.get("rope_freqs.weight")
    if tensor is None:
        return None
    if tensor.type != GGMLQuantizationType.F32 or len(tensor.shape) != 1 or tensor.shape[0] > 4096:
        raise WeightsError(f"{file.path}: rope_freqs.weight is not a short vector of F32")
    raw = bytearray(tensor.nbytes)
    file.read_into(tensor.offset, memoryview(raw), "rope_freqs.weight")
    return list(struct.unpack(f"<{tensor.shape[0]}f", raw))


def _rope(reader: _Metadata, config: Mapping[str, Any], factors: Sequence[float] | None) -> dict[str, Any]:
    """Returns `{"rope_theta": ..., "rope_scaling": ...}` from the file's metadata.

    Args:
        reader: reads the metadata.
        config: the configuration so far; needs `head_dim` and `max_position_embeddings`.
        factors: the file's divisors of the frequencies (`rope_freqs.weight`), or `None`.

    Raises:
        WeightsError: a kind of scaling that is not supported, or an impossible value.
    """
    theta = reader.number("rope.freq_base", 10000.0)
    # Early files have another name for the factor. Without a type, a factor scales linearly.
    factor = reader.number("rope.scaling.factor", reader.number("rope.scale_linear", 1.0))
    kind = reader.get("rope.scaling.type", "none" if factor == 1.0 else "linear")
    original = int(reader.number("rope.scaling.original_context_length", config["max_position_embeddings"]))
    scaling: dict[str, Any] | None
    if factors is not None:
        if kind != "none":
            raise reader.fail(f"both rope_freqs.weight and rope scaling {str(kind)[:40]!r} are present")
        scaling = _llama3_scaling(reader, factors, theta, config)
    elif kind == "none":
        scaling = None
    elif kind == "linear":
        scaling = {"rope_type": "linear", "factor": factor}
    elif kind == "yarn":
        scaling = {
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": original,
            "beta_fast": reader.number("rope.scaling.yarn_beta_fast", 32.0),
            "beta_slow": reader.number("rope.scaling.yarn_beta_slow", 1.0),
        }
    else:
        raise reader.fail(f"rope scaling of type {str(kind)[:40]!r} is not supported")
    return {"rope_theta": theta, "rope_scaling": scaling}


def llama3_factors(head_dim: int, theta: float, factor: float, low: float, high: float, original: int) -> list[float]:
    """Returns the divisor of each of the `head_dim / 2` rotation frequencies under llama3 scaling."""
    divisors = []
    for index in range(0, head_dim, 2):
        wavelength = 2 * math.pi * theta ** (index / head_dim)
        # Waves that fit into the original context many times are kept, those that fit a few times are stretched.
        turns = original / wavelength
        if turns > high:
            divisors.append(1.0)
        elif turns < low:
            divisors.append(factor)
        else:
            smooth = (turns - low) / (high - low)
            divisors.append(1.0 / ((1.0 - smooth) / factor + smooth))
    return divisors


def _llama3_scaling(
    reader: _Metadata, factors: Sequence[float], theta: float, config: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Returns the llama3 parameters that give exactly these divisors."""
    head_dim, longest = config["head_dim"], config["max_position_embeddings"]
    if len(factors) != head_dim // 2 or not all(math.isfinite(f) and f > 0 for f in factors):
        raise reader.fail(f"rope_freqs.weight does not hold {head_dim // 2} positive numbers")
    factor = max(factors)
    if all(abs(f - 1.0) <= _TOLERANCE for f in factors):
        return None
    for original in (8192, *(1 << power for power in range(10, 24) if 1 << power <= longest)):
        expected = llama3_factors(head_dim, theta, factor, _LOW_FREQ_FACTOR, _HIGH_FREQ_FACTOR, original)
        if all(abs(a - b) <= _TOLERANCE * b for a, b in zip(factors, expected, strict=True)):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": _LOW_FREQ_FACTOR,
                "high_freq_factor": _HIGH_FREQ_FACTOR,
                "original_max_position_embeddings": original,
            }
    raise reader.fail(
        "rope_freqs.weight does not follow the llama3 rule with the usual parameters",
        "Use the model's safetensors checkpoint, whose configuration names its rule.",
    )


def _is_off(name: str, value: Any) -> bool:
    """Returns true if an entry says what is so without it."""
    if name == "attention.causal":
        return value is True
    # The scale of attention takes the place of 1 / sqrt(head_dim), which is never 1.
    return not value or (value == 1 and name.endswith(_NEUTRAL_AT_ONE) and name != "attention.scale")


class _Metadata:
    """Reads entries that stand under the name of the file's architecture, such as `block_count`.

    Attributes:
        architecture: the file's `general.architecture`.

    Raises:
        WeightsError: the file names no architecture. So does every method for an entry that is missing without a
            default, or of another type.
    """

    def __init__(self, path: Path, header: GgufHeader) -> None:
        self.path = path
        self.header = header
        self._read: set[str] = set()
        self.architecture: str = self._checked(
            "general.architecture", None, lambda v: isinstance(v, str) and v != "", "a text"
        )

    def fail(self, cause: str, hint: str | None = None) -> WeightsError:
        """Returns the error for `cause`."""
        return WeightsError(f"{self.path}: {cause}", hint)

    def key(self, name: str) -> str:
        """Returns the full key of the architecture's entry `name`."""
        return f"{self.architecture}.{name}"

    def get(self, name: str, default: Any = None) -> Any:
        """Returns the entry as it is stored."""
        self._read.add(self.key(name))
        return self.header.metadata.get(self.key(name), default)

    def size(self, name: str, default: int | None = None) -> int:
        """Returns a positive integer below 2^31."""
        value: int = self._checked(
            self.key(name), default, lambda v: type(v) is int and 0 < v < 1 << 31, "a positive size"
        )
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """Returns a positive finite number."""
        return float(self._checked(self.key(name), default, _is_positive, "a positive number"))

    def token_id(self, key: str, vocab_size: int) -> int:
        """Returns a token id; `key` is the full key."""
        kind = f"an id below the vocabulary's {vocab_size}"
        value: int = self._checked(key, None, lambda v: type(v) is int and 0 <= v < vocab_size, kind)
        return value

    def unread(self) -> dict[str, Any]:
        """Returns the architecture's entries that no method was asked for, without those that say nothing."""
        prefix = self.key("")
        entries = {
            key.removeprefix(prefix): value
            for key, value in self.header.metadata.items()
            if key.startswith(prefix) and key not in self._read
        }
        return {name: value for name, value in entries.items() if name not in _MEANINGLESS and not _is_off(name, value)}

    def _checked(self, key: str, default: Any, accept: Callable[[Any], bool], kind: str) -> Any:
        self._read.add(key)
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


def _is_positive(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value > 0
