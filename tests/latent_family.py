# SPDX-License-Identifier: Apache-2.0
"""A family with a cache of its own kind, as a package would bring it: it imports the public API alone.

Its attention is multi-head latent attention: one vector of a token is the key of all heads, and its beginning their
value. The matrices from the vector to keys and values of heads are multiplied into those of queries and outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from atb_core import nn
from atb_core.graph import DataType, Tensor
from atb_core.layers.attention.kv_cache_spec import CacheTensor, KVCacheSpec
from atb_core.layers.attention.metadata import AttentionMetadata
from atb_core.layers.linear import ColumnParallelLinear, ReplicatedLinear, RowParallelLinear
from atb_core.models.base.config import BaseConfig, Rope
from atb_core.models.base.decoder_causal_lm import DecoderCausalLM
from atb_core.models.base.flash_causal_lm_v3 import torch_to_mindie_graph
from atb_core.models.base.modeling_python import DecoderLayer, DecoderModel
from atb_core.models.base.router import BaseRouter
from atb_core.nn.functional import cat, paged_attention, reshape_and_cache, rope, split

RANK, ROTATED = 16, 16
SIZE = RANK + ROTATED


@dataclass
class LatentConfig(BaseConfig):
    model_type: str = "latent"

    def rope_of(self, layer_idx: int) -> Rope:
        return self.rope(head_dim=ROTATED)


@dataclass
class LatentRouter(BaseRouter):
    pass


class LatentAttention(nn.Module):
    """Queries of all heads, and the one vector that is stored."""

    def __init__(self, config: Any, file_loader: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        heads, hidden = config.num_attention_heads, config.hidden_size
        self.heads, same = heads, (config, file_loader)
        sizes: dict[str, int] = {"in_features": hidden, "out_features": heads * SIZE}
        self.q = ColumnParallelLinear(*same, [f"{prefix}.q_proj"], False, **sizes)
        self.kv = ReplicatedLinear(*same, f"{prefix}.kv_proj", False, in_features=hidden, out_features=SIZE)
        sizes = {"in_features": heads * RANK, "out_features": hidden}
        self.dense = RowParallelLinear(*same, f"{prefix}.o_proj", False, **sizes)

    def forward(self, inputs: Tensor, metadata: AttentionMetadata, **kwargs: Any) -> Tensor:
        heads, lengths = self.heads, metadata.input_lengths
        q, q_rotated = split(shaped(self.q(inputs), heads, SIZE), [RANK, ROTATED], -1)
        kv, k_rotated = split(shaped(self.kv(inputs), 1, SIZE), [RANK, ROTATED], -1)
        assert metadata.cos is not None
        assert metadata.sin is not None
        tables = metadata.cos, metadata.sin
        q_rotated, k_rotated = rope(flat(q_rotated, heads), flat(k_rotated, 1), *tables, lengths, 2)
        q = cat([q, shaped(q_rotated, heads, ROTATED)], -1)
        kv = cat([kv, shaped(k_rotated, 1, ROTATED)], -1)
        reshape_and_cache(kv, kv, metadata.k_cache, metadata.v_cache, metadata.slots)
        where: dict[str, Any] = {"k": kv, "v": kv, "is_triu_mask": True}
        if not metadata.is_prefill:
            caches = {"k_cache": metadata.k_cache, "v_cache": metadata.v_cache}
            where = {**caches, "block_table": metadata.block_tables, "q_lens": metadata.q_lens}
        out = paged_attention(q, head_num=heads, kv_head_num=1, kv_lens=lengths, qk_scale=SIZE**-0.5, **where)
        return self.dense(out[:, :, :RANK].reshape(lambda shape: [shape[0], heads * RANK]))  # type: ignore[no-any-return]


def shaped(x: Tensor, heads: int, size: int) -> Tensor:
    return x.reshape(lambda shape: [shape[0], heads, size])


def flat(x: Tensor, heads: int) -> Tensor:
    return x.reshape(lambda shape: [shape[0], heads * ROTATED])


class LatentLayer(DecoderLayer):
    attention_cls = LatentAttention


class LatentModel(DecoderModel):
    layer_cls = LatentLayer


@torch_to_mindie_graph()
class FlashLatentForCausalLM(DecoderCausalLM):
    model_cls = LatentModel

    def kv_cache_spec(self, layer_idx: int, dtype: DataType) -> KVCacheSpec:
        return KVCacheSpec((CacheTensor("latent", 1, SIZE, dtype),))
