# SPDX-License-Identifier: Apache-2.0
"""The causal language model of most families: a decoder model and an output matrix, tied or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from atb_core.graph.tensor import Tensor
from atb_core.layers.base import ShapeSource
from atb_core.layers.linear.linear import ParallelLMHead
from atb_core.models.base.flash_causal_lm_v3 import FlashCausalLMV3
from atb_core.models.base.mindie_llm_config import MindIELLMConfig
from atb_core.models.base.modeling_python import BaseModel, DecoderModel
from atb_core.nn.functional import gather, tanh

__all__ = ["DecoderCausalLM"]


class DecoderCausalLM(FlashCausalLMV3):
    """A model of the class `model_cls` and its logits: of `lm_head_indices`, or of all tokens in decode."""

    model_cls: ClassVar[type[BaseModel]] = DecoderModel
    #: Factor of the logits, which a subclass sets; `None` for none.
    logits_scale: float | None = None
    #: Cap of the logits, `cap * tanh(logits / cap)`, which a subclass sets; `None` or 0 for none.
    logits_softcap: float | None = None

    def __init__(self, mindie_llm_config: MindIELLMConfig, weight_loader: ShapeSource | None, **kwargs: Any) -> None:
        super().__init__(mindie_llm_config, weight_loader, **kwargs)
        config = mindie_llm_config.hf_config
        self.model = self.model_cls(
            config, weight_loader, prefix="model", config_metadata=self.model_status, infer_param=self.infer_param
        )
        tied_to = self.model.embed_tokens.weight if config.tie_word_embeddings else None
        self.lm_head = ParallelLMHead(config, weight_loader, "lm_head", tied_to=tied_to)

    def forward(self, **kwargs: Any) -> Mapping[str, Tensor]:
        """Records the model; returns the logits as `model_out`, or with `hidden_states` what they are made of."""
        hidden = self.model(**kwargs)
        rows = kwargs["lm_head_indices"]
        if rows is not None:
            hidden = gather(hidden, 0, rows)
        if kwargs.get("hidden_states"):
            return {"model_out": hidden}
        logits = self.lm_head(hidden)
        if self.logits_scale is not None:
            logits = logits * self.logits_scale
        if self.logits_softcap:
            logits = tanh(logits / self.logits_softcap) * self.logits_softcap
        return {"model_out": logits}
