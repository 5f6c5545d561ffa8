# SPDX-License-Identifier: Apache-2.0
"""The causal language models: decoder model and output matrix."""

from __future__ import annotations

from atb_core.models.base.decoder_causal_lm import DecoderCausalLM
from atb_core.models.base.flash_causal_lm_v3 import torch_to_mindie_graph
from atb_qwen2.modeling import Qwen2Model, Qwen2MoeModel


@torch_to_mindie_graph()
class FlashQwen2ForCausalLMV3(DecoderCausalLM):
    """Qwen2 and Qwen2.5 (dense) with paged attention."""

    model_cls = Qwen2Model


@torch_to_mindie_graph()
class FlashQwen2MoeForCausalLMV3(DecoderCausalLM):
    """Qwen1.5 and Qwen2 with a mixture of experts and paged attention."""

    model_cls = Qwen2MoeModel
