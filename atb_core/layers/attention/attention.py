# SPDX-License-Identifier: Apache-2.0
"""Grouped-query attention over a paged key/value cache."""

from __future__ import annotations

import math
from typing import Any

from atb_core.errors import GraphError
from atb_core.graph.tensor import Tensor
from atb_core.layers.base import HeadCounts, LayerConfig, ShapeSource
from atb_core.layers.linear.linear import MergedColumnParallelLinear, RowParallelLinear
from atb_core.layers.norm.normalization import RmsNorm
from atb_core.nn.functional import MaskType, paged_attention, reshape_and_cache, rope
from atb_core.nn.module import Module

__all__ = ["Attention"]


class Attention(Module):
    """Queries, keys and values from one packed weight, rotary positions, attention, output matrix.

    The size of a head may differ from `hidden_size / num_attention_heads`. With `config.use_qk_norm`
    every head of queries and keys is normed before it is turned. A subclass may put other layers into
    `qkv`, `dense`, `q_norm` and `k_norm`: construction costs nothing.

    Args:
        config_metadata: head counts of this process; those of the whole model by default.
        qkv_bias: whether queries, keys and values have a bias.
        dense_bias: whether the output matrix has one. If neither is given, `config.attention_bias` says it of both;
            one that is given alone leaves the other without.
    """

    def __init__(
        self,
        config: LayerConfig,
        file_loader: ShapeSource | None,
        prefix: str,
        config_metadata: HeadCounts | None = None,
        infer_param: Any = None,
        *,
        qkv_bias: bool | None = None,
        dense_bias: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.config = config
        self.prefix = prefix
        self.config_metadata = config_metadata
        self.infer_param = infer_param
        self.num_heads, self.num_kv_heads, self.head_dim = _head_counts(config, config_metadata)
        self.scale = 1.0 / math.sqrt(self.head_dim)
        if qkv_bias is None and dense_bias is None:
            qkv_bias = dense_bias = config.attention_bias
        q_size, kv_size = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        self.qkv = MergedColumnParallelLinear(
            config,
            file_loader,
            [f"{prefix}.{name}_proj" for name in ("q", "k", "v")],
            bool(qkv_bias),
            in_features=config.hidden_size,
            out_features=[q_size, kv_size, kv_size],
        )
        self.dense = RowParallelLinear(
            config,
            file_loader,
            f"{prefix}.o_proj",
            bool(dense_bias),
            in_features=q_size,
            out_features=config.hidden_size,
        )
        if config.use_qk_norm:
            self.q_norm = RmsNorm(config, file_loader, f"{prefix}.q_norm", size=self.head_dim)
            self.k_norm = RmsNorm(config, file_loader, f"{prefix}.k_norm", size=self.head_dim)

    def forward(
        self,
        inputs: Tensor,
        cos: Tensor,
        sin: Tensor,
        k_cache: Tensor,
        v_cache: Tensor,
        slot_mapping: Tensor,
        mask: Tensor | None,
        seq_lens: Tensor,
        block_table: Tensor | None,
        token_offset: Tensor | None = None,
        layer_ids: Tensor | None = None,
        is_prefill: bool = True,
        **kwargs: Any,
    ) -> Tensor:
        """Attention of the new tokens; writes their keys and values into the cache.

        Args:
            inputs: `[T, hidden_size]`.
            cos, sin: `[T, head_dim]`, one row for each token.
            k_cache, v_cache: `[blocks, block_size, num_kv_heads, head_dim]`.
            slot_mapping: `[T]` int32, each token's place in the cache.
            mask: `[128, 128]` upper triangle, prefill only.
            seq_lens: `[B]` int32; new tokens of each sequence in prefill, context with them in decode.
            block_table: `[B, max_blocks]` int32, decode only.

        Returns:
            `[T, hidden_size]`.
        """
        if token_offset is not None or layer_ids is not None:
            raise GraphError("token_offset and layer_ids belong to an unpaged cache, which is not supported")
        q, k, v = self._heads(inputs, cos, sin, seq_lens)
        reshape_and_cache(k, v, k_cache, v_cache, slot_mapping)
        if is_prefill:
            masked = MaskType.UNDEFINED if mask is None else MaskType.NORM
            out = paged_attention(
                q, k=k, v=v, mask=mask, mask_type=masked, head_num=self.num_heads, kv_head_num=self.num_kv_heads,
                kv_lens=seq_lens, qk_scale=self.scale, is_triu_mask=True,
            )  # fmt: skip
        else:
            out = paged_attention(
                q, k_cache=k_cache, v_cache=v_cache, block_table=block_table, head_num=self.num_heads,
                kv_head_num=self.num_kv_heads, kv_lens=seq_lens, qk_scale=self.scale,
            )  # fmt: skip
        width = self.num_heads * self.head_dim
        return self.dense(out.reshape(lambda shape: [shape[0], width]))  # type: ignore[no-any-return]

    def _heads(self, inputs: Tensor, cos: Tensor, sin: Tensor, seq_lens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Turned queries and keys, and values, as `[T, heads, head_dim]`."""
        q, k, v = self.qkv(inputs)
        q, k = self.norm_heads(q, k)
        q, k = rope(q, k, cos, sin, seq_lens)
        return (
            self._split_heads(q, self.num_heads),
            self._split_heads(k, self.num_kv_heads),
            self._split_heads(v, self.num_kv_heads),
        )

    def norm_heads(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """What is done to queries and keys before they are turned: by default a norm of every head if `use_qk_norm`.

        Args:
            q: `[T, num_heads * head_dim]`.
            k: `[T, num_kv_heads * head_dim]`.

        Returns:
            Queries and keys of the same shapes. A family with other norms puts them in by overriding this.
        """
        if not self.config.use_qk_norm:
            return q, k
        q = self._flat(self.q_norm(self._split_heads(q, self.num_heads)), self.num_heads)
        return q, self._flat(self.k_norm(self._split_heads(k, self.num_kv_heads)), self.num_kv_heads)

    def _split_heads(self, x: Tensor, heads: int) -> Tensor:
        return x.reshape(lambda shape: [shape[0], heads, self.head_dim])

    def _flat(self, x: Tensor, heads: int) -> Tensor:
        return x.reshape(lambda shape: [shape[0], heads * self.head_dim])


def _head_counts(config: LayerConfig, metadata: HeadCounts | None) -> tuple[int, int, int]:
    if metadata is not None:
        return metadata.num_heads, metadata.num_kv_heads, metadata.head_dim
    heads = config.num_attention_heads
    return heads, config.num_key_value_heads or heads, config.head_dim or config.hidden_size // heads
