# SPDX-License-Identifier: Apache-2.0
"""The smallest decoder that core's bricks make, and a checkpoint for it: no plugin is needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from atb_core.checkpoint.base import WeightLoader
from atb_core.graph.arrays import data_type
from atb_core.graph.dtype import DataType
from atb_core.models.base.config import BaseConfig
from atb_core.models.base.decoder_causal_lm import DecoderCausalLM
from atb_core.models.base.mindie_llm_config import MindIELLMConfig
from atb_core.models.runtime.weight_loading import collect_parameters
from atb_core.nn import Module

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


class SmallForCausalLM(DecoderCausalLM):
    """Undecorated: each test decorates it with what it needs."""


def random_tensors(model: Module, seed: int = 0) -> dict[str, torch.Tensor]:
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
    quantization = None

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.tensors = dict(tensors)
        self.reads: list[str] = []

    def names(self) -> list[str]:
        return list(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.tensors[name].shape)

    def dtype(self, name: str) -> DataType:
        return data_type(self.tensors[name].dtype)

    def unlisted(self) -> frozenset[str]:
        return frozenset()

    def nbytes(self, name: str) -> int:
        return self.tensors[name].numel() * self.tensors[name].element_size()

    read_into = WeightLoader.read_into

    def get(self, name: str) -> torch.Tensor:
        self.reads.append(name)
        return self.tensors[name].clone()
