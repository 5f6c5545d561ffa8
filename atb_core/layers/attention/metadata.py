# SPDX-License-Identifier: Apache-2.0
"""The symbolic record of a layer's inputs besides the hidden states."""

from __future__ import annotations

from dataclasses import dataclass

from atb_core.graph.tensor import Tensor

__all__ = ["AttentionMetadata"]


@dataclass(frozen=True)
class AttentionMetadata:
    """The inputs of attention besides the hidden states, as symbolic tensors; each layer passes it to its attention.

    Attributes:
        cos, sin: `[T, rotated]`, the rows of the rotary tables for the step's tokens; `None` for a layer without
            rotation. `rotated` is the number of elements of each head that are rotated, mostly `head_dim`.
        k_cache, v_cache: `[blocks, block_size, num_kv_heads, head_dim]`, the layer's cache, which attention writes; or
            what `kv_cache_spec` of the model declares: its first and its last tensor, so that one can be both.
        slots: `[T]` int32, each token's place in the cache; negative for a token that is not stored.
        input_lengths: `[B]` int32; new tokens of each sequence in prefill; else the number of tokens in the cache that
            the last new one sees, itself included.
        attention_mask: `[128, 128]` upper triangle in prefill, `None` in decode. In mixed steps `[T, longest]` for
            backends that need it, else `None`; for a layer with a window `[longest, longest]`. Both are added to the
            scores: 0 where a token is seen.
        block_tables: `[B, max_blocks]` int32, `None` in prefill.
        is_prefill: the phase that is being recorded.
        window: the number of tokens that the layer's tokens see, themselves included; `None`: all before them. In
            the cache of such a layer a token takes the place of the one that it no longer sees, so that slots and
            lengths are the layer's own.
        interleaved: the tables are for the rotation of neighbouring elements.
        q_lens: `[B]` int32 in mixed steps: new tokens of each sequence; `None`: one token in decode.
    """

    cos: Tensor | None
    sin: Tensor | None
    k_cache: Tensor
    v_cache: Tensor
    slots: Tensor
    input_lengths: Tensor
    attention_mask: Tensor | None = None
    block_tables: Tensor | None = None
    is_prefill: bool = True
    window: int | None = None
    interleaved: bool = False
    q_lens: Tensor | None = None
