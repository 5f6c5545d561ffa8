# SPDX-License-Identifier: Apache-2.0
"""Small files of GGUF, right ones and wrong ones, built byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import gguf
import gguf.quants
import numpy as np


def gguf_string(text: bytes | str) -> bytes:
    """A string as GGUF stores it."""
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


_TYPES = {bool: (7, "?"), int: (4, "I"), float: (6, "f")}


def gguf_value(value: Any) -> bytes:
    """A metadata value with its type: bool, 32-bit unsigned, 32-bit float, string, or a list of one of these."""
    if isinstance(value, bytes):
        return value  # already encoded, for values that are wrong on purpose
    if isinstance(value, str):
        return struct.pack("<I", 8) + gguf_string(value)
    if isinstance(value, list):
        if not value or isinstance(value[0], str):
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(gguf_string, value))
        kind, code = _TYPES[type(value[0])]
        return struct.pack("<IIQ", 9, kind, len(value)) + struct.pack(f"<{len(value)}{code}", *value)
    kind, code = _TYPES[type(value)]
    return struct.pack("<I" + code, kind, value)


def gguf_tensor_info(name: str, shape: Sequence[int], kind: int, offset: int) -> bytes:
    """A tensor's description; `shape` is torch's, outermost first."""
    sizes = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
    return gguf_string(name) + sizes + struct.pack("<IQ", kind, offset)


def gguf_bytes(
    metadata: Mapping[str, Any] | Sequence[tuple[str, Any]],
    infos: Sequence[bytes] = (),
    data: bytes = b"",
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
    alignment: int = 32,
) -> bytes:
    """A GGUF file from its parts; `counts` overrides the true (tensors, metadata entries)."""
    pairs = list(metadata.items()) if isinstance(metadata, Mapping) else list(metadata)
    tensors, entries = counts or (len(infos), len(pairs))
    head = b"GGUF" + struct.pack("<IQQ", version, tensors, entries)
    head += b"".join(gguf_string(key) + gguf_value(value) for key, value in pairs) + b"".join(infos)
    return head + b"\0" * (-len(head) % alignment) + data


TINY = {
    "general.architecture": "tiny",
    "tiny.block_count": 1,
    "tiny.embedding_length": 64,
    "tiny.feed_forward_length": 96,
    "tiny.attention.head_count": 4,
    "tiny.attention.head_count_kv": 2,
    "tiny.context_length": 128,
    "tiny.attention.layer_norm_rms_epsilon": 1e-5,
    "tiny.rope.freq_base": 10000.0,
}
TINY_SHAPES = {
    "token_embd.weight": (40, 64),
    "output_norm.weight": (64,),
    "blk.0.attn_norm.weight": (64,),
    "blk.0.attn_q.weight": (64, 64),
    "blk.0.attn_k.weight": (32, 64),
    "blk.0.attn_v.weight": (32, 64),
    "blk.0.attn_output.weight": (64, 64),
    "blk.0.ffn_norm.weight": (64,),
    "blk.0.ffn_gate.weight": (96, 64),
    "blk.0.ffn_up.weight": (96, 64),
    "blk.0.ffn_down.weight": (64, 96),
}


def tiny_gguf(
    matrix_type: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    metadata: Mapping[str, Any] | None = None,
    tensors: Mapping[str, np.ndarray] | None = None,
) -> tuple[bytes, dict[str, np.ndarray]]:
    """A complete little model and the float32 values that were stored; vectors stay F32, as real files have them.

    Args:
        matrix_type: the type of matrices.
        metadata: entries over `TINY`'s; None removes one.
        tensors: tensors over those of `TINY_SHAPES`.
    """
    generator = np.random.default_rng(0)
    values = {name: generator.standard_normal(shape, dtype=np.float32) for name, shape in TINY_SHAPES.items()}
    values.update(tensors or {})
    infos, data = [], b""
    for name, value in values.items():
        kind = matrix_type if value.ndim > 1 else gguf.GGMLQuantizationType.F32
        infos.append(gguf_tensor_info(name, value.shape, int(kind), len(data)))
        raw = gguf.quants.quantize(value, kind).tobytes()
        data += raw + b"\0" * (-len(raw) % 32)
    entries = {name: entry for name, entry in {**TINY, **(metadata or {})}.items() if entry is not None}
    return gguf_bytes(entries, infos, data), values


def byte_alphabet() -> list[str]:
    """The 256 printable characters that stand for bytes in byte-level vocabularies."""
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def byte_level_metadata(
    pre: str, extra: Sequence[tuple[str, int]] = (), merges: Sequence[str] = ("a b",)
) -> dict[str, Any]:
    """`tokenizer.ggml.*` of a byte-level vocabulary: bytes, merged pieces, then `extra` tokens with their types."""
    merged = ["".join(merge.split(" ")) for merge in merges]
    tokens = [*byte_alphabet(), *merged, *(text for text, _ in extra)]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * (256 + len(merged)) + [kind for _, kind in extra],
        "tokenizer.ggml.merges": list(merges),
    }
