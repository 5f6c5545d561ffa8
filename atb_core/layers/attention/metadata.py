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
        cos, sin: `[T, head_dim]`, the rows of the rotary tables for the step's tokens.
        k_cache, v_cache: `[blocks, block_size, num_kv_heads, head_dim]`, the layer's cache, which attention writes.
        slots: `[T]` int32, each token's place in the cache.
        input_lengths: `[B]` int32; new tokens of each sequence in prefill, context lengths with them in decode.
        attention_mask: `[128, 128]` upper triangle in prefill, `None` in decode.
        block_tables: `[B, max_blocks]` int32 in decode, `None` in prefill.
        is_prefill: the phase that is being recorded.
    """

    cos: Tensor
    sin: Tensor
    k_cache: Tensor
    v_cache: Tensor
    slots: Tensor
    input_lengths: Tensor
    attention_mask: Tensor | None = None
    block_tables: Tensor | None = None
    is_prefill: bool = True
