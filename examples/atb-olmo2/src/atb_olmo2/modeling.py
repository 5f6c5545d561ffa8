# SPDX-License-Identifier: Apache-2.0
"""OLMo-2's decoder: it normalizes the outputs of attention and feed-forward, and whole queries and keys."""

from __future__ import annotations

from typing import Any

from atb_core.graph import Tensor
from atb_core.layers.attention.attention import Attention
from atb_core.layers.attention.metadata import AttentionMetadata
from atb_core.layers.norm.normalization import RmsNorm
from atb_core.models.base.config import BaseConfig
from atb_core.models.base.modeling_python import DecoderLayer, DecoderModel


class Olmo2Attention(Attention):
    """Attention that normalizes queries and keys over all heads together."""

    def __init__(self, config: BaseConfig, file_loader: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, file_loader, prefix, *args, **kwargs)
        q_size, k_size = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        self.q_norm = RmsNorm(config, file_loader, f"{prefix}.q_norm", size=q_size)
        self.k_norm = RmsNorm(config, file_loader, f"{prefix}.k_norm", size=k_size)

    def norm_heads(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return self.q_norm(q), self.k_norm(k)


class Olmo2Layer(DecoderLayer):
    """Decoder layer that normalizes the outputs of attention and feed-forward instead of their inputs."""

    attention_cls = Olmo2Attention

    def __init__(self, config: BaseConfig, file_loader: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, file_loader, *args, **kwargs)
        # An unused norm would still require its weight in the checkpoint.
        del self.input_layernorm
        self.post_feedforward_layernorm = RmsNorm(config, file_loader, f"{self.prefix}.post_feedforward_layernorm")

    def forward(self, inputs: Tensor, metadata: AttentionMetadata, **kwargs: Any) -> Tensor:
        hidden = inputs + self.post_attention_layernorm(self.self_attn(inputs, metadata, **kwargs))
        return hidden + self.post_feedforward_layernorm(self.mlp(hidden))


class Olmo2Model(DecoderModel):
    layer_cls = Olmo2Layer
