# SPDX-License-Identifier: Apache-2.0
"""The causal language models: decoder model and output matrix, in Gemma 2 with a cap of the logits."""

from __future__ import annotations

from typing import Any

from atb_core.models.base.decoder_causal_lm import DecoderCausalLM
from atb_core.models.base.flash_causal_lm_v3 import torch_to_mindie_graph
from atb_core.models.base.mindie_llm_config import MindIELLMConfig

from atb_gemma3.modeling import Gemma2Model, Gemma3Model


@torch_to_mindie_graph()
class FlashGemma2ForCausalLMV3(DecoderCausalLM):
    """Gemma 2 with paged attention."""

    model_cls = Gemma2Model

    def __init__(self, mindie_llm_config: MindIELLMConfig, weight_loader: Any, **kwargs: Any) -> None:
        super().__init__(mindie_llm_config, weight_loader, **kwargs)
        self.logits_softcap = mindie_llm_config.hf_config.final_logit_softcapping


@torch_to_mindie_graph()
class FlashGemma3ForCausalLMV3(DecoderCausalLM):
    """Gemma 3 with paged attention."""

    model_cls = Gemma3Model
