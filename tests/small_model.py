# SPDX-License-Identifier: Apache-2.0
"""The smallest decoder that core's bricks make, and a checkpoint for it: no plugin is needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from atb_core.layers.linear.linear import ColumnParallelLinear
from atb_core.models.base.config import BaseConfig
from atb_core.models.base.flash_causal_lm_v3 import FlashCausalLMV3
from atb_core.models.base.mindie_llm_config import MindIELLMConfig
from atb_core.models.base.modeling_python import DecoderModel
from atb_core.models.base.weight_loading import collect_parameters
from atb_core.nn.functional import gather
from atb_core.nn.tensor import Tensor

SMALL: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def small_config(**changes: Any) -> MindIELLMConfig:
    """A configuration of `SMALL` with some fields changed."""
    return MindIELLMConfig(BaseConfig.from_dict({**SMALL, **changes}))


class SmallForCausalLM(FlashCausalLMV3):
    """Undecorated: each test decorates it with what it needs."""

    def __init__(self, mindie_llm_config: Any, weight_loader: Any, **kwargs: Any) -> None:
        super().__init__(mindie_llm_config, weight_loader, **kwargs)
        config = mindie_llm_config.hf_config
        self.model = DecoderModel(config, weight_loader, "model", config_metadata=self.model_status)
        tied = self.model.embed_tokens.weight if config.tie_word_embeddings else None
        self.lm_head = ColumnParallelLinear(
            config, weight_loader, "lm_head", in_features=config.hidden_size, out_features=config.vocab_size,
            tied_to=tied,
        )  # fmt: skip

    def forward(self, **kwargs: Any) -> Mapping[str, Tensor]:
        hidden = self.model(**kwargs)
        if kwargs["is_prefill"]:
            hidden = gather(hidden, 0, kwargs["lm_head_indices"])
        return {"model_out": self.lm_head(hidden)}


def random_tensors(model: torch.nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    """A float32 tensor for everything that the model wants from a checkpoint."""
    generator = torch.Generator().manual_seed(seed)
    return {
        source.name: torch.randn(source.shape, generator=generator) / source.shape[-1] ** 0.5
        for parameter in collect_parameters([model])
        for source in parameter.sources
    }


class MemoryLoader:
    """A checkpoint that is a dict of tensors; notes what was read."""

    source = "memory"

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.tensors = dict(tensors)
        self.reads: list[str] = []

    def names(self) -> list[str]:
        return list(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.tensors[name].shape)

    def nbytes(self, name: str) -> int:
        return self.tensors[name].numel() * self.tensors[name].element_size()

    def get(self, name: str) -> torch.Tensor:
        self.reads.append(name)
        return self.tensors[name].clone()
