# SPDX-License-Identifier: Apache-2.0
"""The causal language models: decoder model and output matrix."""

from __future__ import annotations

from atb_core.models.base.decoder_causal_lm import DecoderCausalLM
from atb_core.models.base.flash_causal_lm_v3 import torch_to_mindie_graph
from atb_qwen3.modeling import Qwen3Model, Qwen3MoeModel


@torch_to_mindie_graph()
class FlashQwen3ForCausalLMV3(DecoderCausalLM):
    """Qwen3 (dense) with paged attention."""

    model_cls = Qwen3Model


@torch_to_mindie_graph()
class FlashQwen3MoeForCausalLMV3(DecoderCausalLM):
    """Qwen3 with a mixture of experts and paged attention."""

    model_cls = Qwen3MoeModel
