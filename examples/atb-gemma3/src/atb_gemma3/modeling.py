# SPDX-License-Identifier: Apache-2.0
"""The decoder of Gemma 2 and 3: a norm on both sides of attention and feed-forward, and scaled embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
from atb_core.graph import DataType, Tensor
from atb_core.graph.arrays import numpy_dtype
from atb_core.layers.attention.attention import Attention
from atb_core.layers.attention.metadata import AttentionMetadata
from atb_core.layers.embedding.word_embedding import ParallelEmbedding
from atb_core.layers.norm.normalization import RmsNorm
from atb_core.models.base.modeling_python import DecoderLayer, DecoderModel

from atb_gemma3.config import Gemma2Config, Gemma3Config

GemmaConfig = Gemma2Config | Gemma3Config


def norm(config: GemmaConfig, file_loader: Any, prefix: str, size: int | None = None) -> RmsNorm:
    """Creates a norm; checkpoints hold its weight minus one, and the sum is not rounded to the model's dtype."""
    return RmsNorm(config, file_loader, prefix, size=size, offset=1.0, dtype=DataType.FLOAT)


class Gemma2Attention(Attention):
    """Attention with a scale from the configuration; the base class reads the cap of its scores there."""

    def __init__(self, config: GemmaConfig, file_loader: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, file_loader, prefix, *args, scale=config.query_pre_attn_scalar**-0.5, **kwargs)


class Gemma3Attention(Gemma2Attention):
    """Attention with norms of heads, too."""

    def __init__(self, config: Gemma3Config, file_loader: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, file_loader, prefix, *args, **kwargs)
        self.q_norm = norm(config, file_loader, f"{prefix}.q_norm", self.head_dim)
        self.k_norm = norm(config, file_loader, f"{prefix}.k_norm", self.head_dim)


class Gemma2Layer(DecoderLayer):
    """Decoder layer that normalizes inputs and outputs of attention and feed-forward."""

    attention_cls = Gemma2Attention

    def __init__(self, config: GemmaConfig, file_loader: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, file_loader, *args, **kwargs)
        self.input_layernorm = norm(config, file_loader, f"{self.prefix}.input_layernorm")
        self.post_attention_layernorm = norm(config, file_loader, f"{self.prefix}.post_attention_layernorm")
        self.pre_feedforward_layernorm = norm(config, file_loader, f"{self.prefix}.pre_feedforward_layernorm")
        self.post_feedforward_layernorm = norm(config, file_loader, f"{self.prefix}.post_feedforward_layernorm")

    def forward(self, inputs: Tensor, metadata: AttentionMetadata, **kwargs: Any) -> Tensor:
        attended = self.self_attn(self.input_layernorm(inputs), metadata, **kwargs)
        hidden = inputs + self.post_attention_layernorm(attended)
        return hidden + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(hidden)))


class Gemma3Layer(Gemma2Layer):
    """Decoder layer with norms of heads."""

    attention_cls = Gemma3Attention


class Gemma2Model(DecoderModel):
    """Decoder whose embeddings are multiplied by the root of their size, rounded to the model's dtype."""

    layer_cls = Gemma2Layer

    def __init__(self, config: GemmaConfig, file_loader: Any, prefix: str, **kwargs: Any) -> None:
        super().__init__(config, file_loader, prefix, **kwargs)
        scale = float(np.array(config.hidden_size**0.5, numpy_dtype(config.data_type)))
        self.embed_tokens = ParallelEmbedding(config, file_loader, f"{prefix}.embed_tokens", scale=scale)
        self.norm = norm(config, file_loader, f"{prefix}.norm")


class Gemma3Model(Gemma2Model):
    """Decoder with norms of heads."""

    layer_cls = Gemma3Layer
