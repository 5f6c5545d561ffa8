# SPDX-License-Identifier: Apache-2.0
"""Routers: the runner's entry points into the families."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from atb_core.checkpoint import FormatRules
from atb_core.models.base.router import BaseRouter

# GGUF files hold the weights of norms as they are used, Hugging Face's checkpoints minus one.
_NORMS = (
    "model.norm",
    *(
        f"model.layers.{{}}.{name}"
        for name in (
            "input_layernorm",
            "post_attention_layernorm",
            "pre_feedforward_layernorm",
            "post_feedforward_layernorm",
            "self_attn.q_norm",
            "self_attn.k_norm",
        )
    ),
)


@dataclass
class Gemma2Router(BaseRouter):
    """Routes `model_type` gemma2. Its GGUF files are refused: they do not say what `query_pre_attn_scalar` is."""


@dataclass
class Gemma3Router(BaseRouter):
    """Routes `model_type` gemma3_text, and gemma3 of GGUF files."""

    format_rules: ClassVar[Mapping[str, FormatRules]] = {
        "GGUF": FormatRules(
            names={
                "blk.{}.post_attention_norm": "model.layers.{}.post_attention_layernorm",
                "blk.{}.ffn_norm": "model.layers.{}.pre_feedforward_layernorm",
                "blk.{}.post_ffw_norm": "model.layers.{}.post_feedforward_layernorm",
            },
            config={"hidden_act": "gelu_pytorch_tanh", "query_pre_attn_scalar": None},
            metadata={"rope.freq_base_swa": "rope_local_base_freq"},
            transforms={f"{name}.weight": lambda weight: weight - 1 for name in _NORMS},
        )
    }
