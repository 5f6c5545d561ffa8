# SPDX-License-Identifier: Apache-2.0
"""The causal language model: decoder model and output matrix."""

from __future__ import annotations

from atb_core.models.base.decoder_causal_lm import DecoderCausalLM
from atb_core.models.base.flash_causal_lm_v3 import torch_to_mindie_graph

from atb_gemma3.modeling import Gemma3Model


@torch_to_mindie_graph()
class FlashGemma3ForCausalLMV3(DecoderCausalLM):
    """Gemma 3 with paged attention."""

    model_cls = Gemma3Model
