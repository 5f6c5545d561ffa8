# SPDX-License-Identifier: Apache-2.0
"""Qwen2's decoders: queries, keys and values have a bias; the rest is the common decoder."""

from __future__ import annotations

from typing import Any

from atb_core.layers.attention.attention import Attention
from atb_core.models.base.config import BaseConfig
from atb_core.models.base.modeling_python import DecoderLayer, DecoderModel, MoeDecoderLayer, MoeDecoderModel


class Qwen2Attention(Attention):
    """Attention with a bias on queries, keys and values and none on the output."""

    def __init__(self, config: BaseConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, qkv_bias=config.attention_bias, **kwargs)


class Qwen2Layer(DecoderLayer):
    """The common layer with Qwen2's attention."""

    attention_cls = Qwen2Attention


class Qwen2Model(DecoderModel):
    """The dense decoder."""

    layer_cls = Qwen2Layer


class Qwen2MoeLayer(MoeDecoderLayer):
    """The common layer with experts and Qwen2's attention."""

    attention_cls = Qwen2Attention


class Qwen2MoeModel(MoeDecoderModel):
    """The decoder with experts."""

    layer_cls = Qwen2MoeLayer
