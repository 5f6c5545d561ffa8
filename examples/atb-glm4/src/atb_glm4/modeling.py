# SPDX-License-Identifier: Apache-2.0
"""GLM-4's decoder: norms of the outputs of attention and feed-forward, too, before they are added."""

from __future__ import annotations

from typing import Any

from atb_core.graph import Tensor
from atb_core.layers.attention.attention import Attention
from atb_core.layers.attention.metadata import AttentionMetadata
from atb_core.layers.norm.normalization import RmsNorm
from atb_core.models.base.config import BaseConfig
from atb_core.models.base.modeling_python import DecoderLayer, DecoderModel


class Glm4Attention(Attention):
    """Attention whose output matrix has no bias."""

    def __init__(self, config: BaseConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, qkv_bias=config.attention_bias, **kwargs)


class Glm4Layer(DecoderLayer):
    """Decoder layer with four norms. The checkpoint has the matrices `gate` and `up` as one; `Mlp` reads both forms."""

    attention_cls = Glm4Attention

    def __init__(self, config: BaseConfig, file_loader: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, file_loader, *args, **kwargs)
        self.post_self_attn_layernorm = RmsNorm(config, file_loader, f"{self.prefix}.post_self_attn_layernorm")
        self.post_mlp_layernorm = RmsNorm(config, file_loader, f"{self.prefix}.post_mlp_layernorm")

    def forward(self, inputs: Tensor, metadata: AttentionMetadata, **kwargs: Any) -> Tensor:
        attended = self.self_attn(self.input_layernorm(inputs), metadata, **kwargs)
        hidden = inputs + self.post_self_attn_layernorm(attended)
        return hidden + self.post_mlp_layernorm(self.mlp(self.post_attention_layernorm(hidden)))


class Glm4Model(DecoderModel):
    layer_cls = Glm4Layer
