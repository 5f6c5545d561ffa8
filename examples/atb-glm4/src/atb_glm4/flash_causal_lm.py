# SPDX-License-Identifier: Apache-2.0
"""The causal language model: decoder model and output matrix."""

from __future__ import annotations

from atb_core.models.base.decoder_causal_lm import DecoderCausalLM
from atb_core.models.base.flash_causal_lm_v3 import torch_to_mindie_graph

from atb_glm4.modeling import Glm4Model


@torch_to_mindie_graph()
class FlashGlm4ForCausalLMV3(DecoderCausalLM):
    """GLM-4 with paged attention."""

    model_cls = Glm4Model
