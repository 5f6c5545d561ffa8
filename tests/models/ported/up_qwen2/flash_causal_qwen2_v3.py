# SPDX-License-Identifier: Apache-2.0
"""The causal model, decorated with the features that ATB-Models' families have."""

# mypy: ignore-errors

from atb_core.layers.linear.linear import ColumnParallelLinear
from atb_core.models.base.feature_decorator.v3.multilora_decorator import MultiLoraDecorator
from atb_core.models.base.feature_decorator.v3.singlelora_decorator import SingleLoraDecorator
from atb_core.models.base.flash_causal_lm_v3 import FlashCausalLMV3, torch_to_mindie_graph
from atb_core.models.base.mindie_llm_config import MindIELLMConfig, ModelStatus
from atb_core.nn.distributed import distributed as dist
from atb_core.nn.functional import gather
from atb_core.utils.loader.safetensor_file_loader import SafetensorFileLoader
from up_qwen2.modeling_qwen2_python import Qwen2Model


class Qwen2ModelStatus(ModelStatus):
    enable_intra_layer_add_norm: bool = False

    @classmethod
    def from_config(cls, mindie_llm_config):
        status = super().from_config(mindie_llm_config)
        status.enable_intra_layer_add_norm = True
        return status


@torch_to_mindie_graph(SingleLoraDecorator, MultiLoraDecorator)
class FlashQwen2ForCausalLMV3(FlashCausalLMV3):
    model_status_cls = Qwen2ModelStatus

    def __init__(self, mindie_llm_config: MindIELLMConfig, weight_loader: SafetensorFileLoader, **kwargs) -> None:
        super().__init__(mindie_llm_config, weight_loader, **kwargs)
        self.model = Qwen2Model(
            config=mindie_llm_config.hf_config,
            file_loader=weight_loader,
            mapping=mindie_llm_config.mapping,
            prefix="model",
            config_metadata=self.model_status,
            **kwargs,
        )
        self.lm_head = ColumnParallelLinear(
            mindie_llm_config.hf_config, weight_loader, ["lm_head"], llm_config=mindie_llm_config.llm_config
        )

    def forward(self, **kwargs):
        hidden = self.model(**kwargs)
        if kwargs.get("is_prefill", True):
            hidden = gather(hidden, 0, kwargs.get("lm_head_indices"))
        logits = self.lm_head(hidden)
        if self.mindie_llm_config.mapping.world_size > 1:
            logits = dist.all_gather(logits).permute([1, 0, 2])
        return {"model_out": logits}
