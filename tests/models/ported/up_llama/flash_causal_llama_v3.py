# SPDX-License-Identifier: Apache-2.0
"""The causal model."""

# mypy: ignore-errors

from atb_core.layers.linear.linear import ColumnParallelLinear
from atb_core.models.base.feature_decorator.v3.multilora_decorator import MultiLoraDecorator
from atb_core.models.base.feature_decorator.v3.singlelora_decorator import SingleLoraDecorator
from atb_core.models.base.flash_causal_lm_v3 import FlashCausalLMV3, torch_to_mindie_graph
from atb_core.nn.functional import gather
from up_llama.modeling_llama_python import LlamaModel


@torch_to_mindie_graph(SingleLoraDecorator, MultiLoraDecorator)
class FlashLlamaForCausalLMV3(FlashCausalLMV3):
    def __init__(self, mindie_llm_config, weight_loader, **kwargs):
        super().__init__(mindie_llm_config, weight_loader, **kwargs)
        config = mindie_llm_config.hf_config
        self.model = LlamaModel(config, weight_loader, prefix="model", config_metadata=self.model_status)
        self.lm_head = ColumnParallelLinear(config, weight_loader, ["lm_head"])

    def forward(self, **kwargs):
        hidden = self.model(**kwargs)
        if kwargs["is_prefill"]:
            hidden = gather(hidden, 0, kwargs["lm_head_indices"])
        return {"model_out": self.lm_head(hidden)}
