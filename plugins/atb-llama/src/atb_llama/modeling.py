# SPDX-License-Identifier: Apache-2.0
"""Llama's decoder: the common one, with biases as the configuration says."""

from __future__ import annotations

from typing import Any

from atb_core.layers.attention.attention import Attention
from atb_core.layers.mlp.mlp import Mlp
from atb_core.models.base.config import BaseConfig
from atb_core.models.base.modeling_python import DecoderLayer, DecoderModel


class LlamaAttention(Attention):
    """Attention whose four matrices have a bias if `attention_bias`."""

    def __init__(self, config: BaseConfig, *args: Any, **kwargs: Any) -> None:
        bias = config.attention_bias
        super().__init__(config, *args, qkv_bias=bias, dense_bias=bias, **kwargs)


class LlamaMlp(Mlp):
    """Feed-forward layer whose three matrices have a bias if `mlp_bias`."""

    def __init__(self, config: BaseConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, bias=config.mlp_bias, **kwargs)


class LlamaLayer(DecoderLayer):
    attention_cls = LlamaAttention
    mlp_cls = LlamaMlp


class LlamaModel(DecoderModel):
    layer_cls = LlamaLayer
