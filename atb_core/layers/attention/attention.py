# SPDX-License-Identifier: Apache-2.0
"""Grouped-query attention over a paged key/value cache."""

from __future__ import annotations

import math
from typing import Any

from atb_core.graph.tensor import Tensor
from atb_core.layers.attention.long_form import accepts_long_form
from atb_core.layers.attention.metadata import AttentionMetadata
from atb_core.layers.base import Layer, LayerConfig, ShapeSource
from atb_core.layers.linear.linear import MergedColumnParallelLinear, RowParallelLinear
from atb_core.layers.norm.normalization import RmsNorm
from atb_core.nn.functional import MaskType, cat, paged_attention, reshape_and_cache, rope, split
from atb_core.nn.module import Module

__all__ = ["Attention"]


class Attention(Layer):
    """Queries, keys and values from one packed weight, rotary positions, attention, output matrix.

    `head_dim` may differ from `hidden_size / num_attention_heads`. With `config.use_qk_norm` every head of queries
    and keys is normalized before it is rotated. A subclass may replace `qkv`, `dense`, `q_norm` and `k_norm`. A
    checkpoint has queries, keys and values as `q_proj`, `k_proj` and `v_proj`, or packed as `qkv_proj`.

    Args:
        qkv_bias: adds a bias to queries, keys and values.
        dense_bias: adds a bias to the output matrix. Both are `config.attention_bias` if neither is given; if one is
            given, the other is false.
        scale: factor of the scores; `head_dim ** -0.5` by default.
        logits_soft_cap: caps a scaled score s by `cap * tanh(s / cap)`; by default `config.attn_logit_softcapping`, if
            the configuration has that field. The backend `atb` refuses it.
    """

    def __init__(
        self,
        config: LayerConfig,
        file_loader: ShapeSource | None,
        prefix: str,
        *args: Any,
        qkv_bias: bool | None = None,
        dense_bias: bool | None = None,
        scale: float | None = None,
        logits_soft_cap: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(config, file_loader, prefix, *args, **kwargs)
        counts = self.config_metadata
        if counts is not None:
            self.num_heads, self.num_kv_heads, self.head_dim = counts.num_heads, counts.num_kv_heads, counts.head_dim
        else:
            self.num_heads = config.num_attention_heads
            self.num_kv_heads = config.num_key_value_heads or self.num_heads
            self.head_dim = config.head_dim or config.hidden_size // self.num_heads
        self.scale = 1.0 / math.sqrt(self.head_dim) if scale is None else scale
        if logits_soft_cap is None:
            logits_soft_cap = getattr(config, "attn_logit_softcapping", None)
        self.logits_soft_cap = logits_soft_cap or 0.0
        if qkv_bias is None and dense_bias is None:
            qkv_bias = dense_bias = config.attention_bias
        q_size, kv_size = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        hidden, sizes = config.hidden_size, [q_size, kv_size, kv_size]
        prefixes = [f"{prefix}.{name}_proj" for name in ("q", "k", "v")]
        self.qkv = MergedColumnParallelLinear(
            config, file_loader, prefixes, bool(qkv_bias), in_features=hidden, out_features=sizes,
            packed=f"{prefix}.qkv_proj",
        )  # fmt: skip
        self.dense = RowParallelLinear(
            config, file_loader, f"{prefix}.o_proj", bool(dense_bias), in_features=q_size, out_features=hidden
        )
        self.q_norm: Module | None = None
        self.k_norm: Module | None = None
        if config.use_qk_norm:
            self.q_norm = RmsNorm(config, file_loader, f"{prefix}.q_norm", size=self.head_dim)
            self.k_norm = RmsNorm(config, file_loader, f"{prefix}.k_norm", size=self.head_dim)
        # The names of ATB-Models, for `forward` methods written for it.
        self.add_aliases({"head_size": "head_dim", "num_heads_per_rank": "num_heads"})
        self.add_aliases({"num_key_value_heads_per_rank": "num_kv_heads"})

    @accepts_long_form
    def forward(self, inputs: Tensor, metadata: AttentionMetadata, **kwargs: Any) -> Tensor:
        """Records the attention of the new tokens; their keys and values are written into the cache.

        ATB-Models' long form is accepted too, see `layers.attention.long_form`.

        Args:
            inputs: `[T, hidden_size]`.
            metadata: the other inputs of the step.
            kwargs: arguments of features, for subclasses.

        Returns:
            `[T, hidden_size]`.
        """
        q, k, v = self.queries_keys_values(inputs, metadata)
        k_cache, v_cache, lengths = metadata.k_cache, metadata.v_cache, metadata.input_lengths
        reshape_and_cache(k, v, k_cache, v_cache, metadata.slots)
        mask = metadata.attention_mask
        masked = MaskType.UNDEFINED if mask is None else MaskType.NORM if metadata.is_prefill else MaskType.SPEC
        sources: dict[str, Any] = {"k_cache": k_cache, "v_cache": v_cache, "block_table": metadata.block_tables}
        if metadata.is_prefill:
            sources = {"k": k, "v": v, "is_triu_mask": metadata.window is None}
        out = paged_attention(
            q, mask=mask, mask_type=masked, head_num=self.num_heads, kv_head_num=self.num_kv_heads, kv_lens=lengths,
            q_lens=metadata.q_lens, qk_scale=self.scale, logits_soft_cap=self.logits_soft_cap, **sources,
        )  # fmt: skip
        width = self.num_heads * self.head_dim
        return self.dense(out.reshape(lambda shape: [shape[0], width]))  # type: ignore[no-any-return]

    def queries_keys_values(self, inputs: Tensor, metadata: AttentionMetadata) -> tuple[Tensor, Tensor, Tensor]:
        """Returns rotated queries and keys, and values, as `[T, heads, head_dim]`, for a `forward` of your own."""
        q, k, v = self.qkv(inputs)
        q, k = self.norm_heads(q, k)
        q, k = self.rotate(q, k, metadata)
        return (
            self._split_heads(q, self.num_heads),
            self._split_heads(k, self.num_kv_heads),
            self._split_heads(v, self.num_kv_heads),
        )

    def norm_heads(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Normalizes every head of queries and keys by `q_norm` and `k_norm`, if set, before they are rotated.

        Args:
            q: `[T, num_heads * head_dim]`.
            k: `[T, num_kv_heads * head_dim]`.

        Returns:
            Queries and keys of the same shapes. A family with other norms overrides this.
        """
        if self.q_norm is not None:
            q = self._flat(self.q_norm(self._split_heads(q, self.num_heads)), self.num_heads)
        if self.k_norm is not None:
            k = self._flat(self.k_norm(self._split_heads(k, self.num_kv_heads)), self.num_kv_heads)
        return q, k

    def rotate(self, q: Tensor, k: Tensor, metadata: AttentionMetadata) -> tuple[Tensor, Tensor]:
        """Rotates queries and keys, shaped as in `norm_heads`, by the angles of `metadata`; or their first elements."""
        cos, sin = metadata.cos, metadata.sin
        if cos is None or sin is None:
            return q, k
        size = cos.shape[-1] if cos.shape else self.head_dim
        assert isinstance(size, int)
        coefficient = size if metadata.interleaved else 2
        if size == self.head_dim:
            return rope(q, k, cos, sin, metadata.input_lengths, coefficient)
        sizes = [size, self.head_dim - size]
        q, q_rest = split(self._split_heads(q, self.num_heads), sizes, -1)
        k, k_rest = split(self._split_heads(k, self.num_kv_heads), sizes, -1)
        q, k = self._flat(q, self.num_heads, size), self._flat(k, self.num_kv_heads, size)
        q, k = rope(q, k, cos, sin, metadata.input_lengths, coefficient)
        q = cat([self._split_heads(q, self.num_heads, size), q_rest], -1)
        k = cat([self._split_heads(k, self.num_kv_heads, size), k_rest], -1)
        return self._flat(q, self.num_heads), self._flat(k, self.num_kv_heads)

    def _split_heads(self, x: Tensor, heads: int, size: int | None = None) -> Tensor:
        return x.reshape(lambda shape: [shape[0], heads, size or self.head_dim])

    def _flat(self, x: Tensor, heads: int, size: int | None = None) -> Tensor:
        return x.reshape(lambda shape: [shape[0], heads * (size or self.head_dim)])
