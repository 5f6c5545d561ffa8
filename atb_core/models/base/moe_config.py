# SPDX-License-Identifier: Apache-2.0
"""The fields of a `config.json` that decoders with a mixture of experts share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from atb_core.errors import ConfigError
from atb_core.models.base.config import BaseConfig

__all__ = ["MoeConfig"]

# Each expert of each layer has its own tensors in a checkpoint; the limit is ten times the largest published models.
_MAX_EXPERTS_IN_ALL = 1 << 18


@dataclass
class MoeConfig(BaseConfig):
    """The number of experts, the number that process a token, and the layers that have them.

    A family lists it after its dense configuration, whose defaults then win:
    `class FooMoeConfig(FooConfig, MoeConfig)`. `intermediate_size` is that of the dense layers,
    `moe_intermediate_size` that of one expert; a `shared_expert_intermediate_size` of 0 means that there is no
    shared expert.
    """

    int_limits: ClassVar[dict[str, tuple[int, int]]] = {
        "num_experts": (1, 4_096),
        "num_experts_per_tok": (1, 4_096),
        "moe_intermediate_size": (1, 1_048_576),
        "shared_expert_intermediate_size": (0, 1_048_576),
        "decoder_sparse_step": (1, 1_024),
    }
    flags: ClassVar[tuple[str, ...]] = ("norm_topk_prob",)
    spellings: ClassVar[dict[str, str]] = {"num_local_experts": "num_experts"}

    num_experts: int = 8
    num_experts_per_tok: int = 2
    moe_intermediate_size: int = 1024
    shared_expert_intermediate_size: int = 0
    norm_topk_prob: bool = False
    decoder_sparse_step: int = 1
    mlp_only_layers: list[int] = field(default_factory=list)

    def validate(self) -> None:
        """Raises ConfigError for the first field that has an impossible value."""
        super().validate()
        if self.num_experts_per_tok > self.num_experts:
            raise ConfigError(
                f"num_experts_per_tok = {self.num_experts_per_tok} is more than num_experts = {self.num_experts}"
            )
        if self.num_experts * self.num_hidden_layers > _MAX_EXPERTS_IN_ALL:
            raise ConfigError(
                f"num_experts = {self.num_experts} in num_hidden_layers = {self.num_hidden_layers} layers are more "
                f"than {_MAX_EXPERTS_IN_ALL} experts"
            )
        layers = self.mlp_only_layers
        if not isinstance(layers, list) or not all(type(layer) is int and layer >= 0 for layer in layers):
            raise ConfigError(f"mlp_only_layers = {layers!r} must be a list of layer numbers")

    def is_sparse(self, layer_idx: int) -> bool:
        """Returns true if layer `layer_idx` has experts; the others are dense."""
        return layer_idx not in self.mlp_only_layers and (layer_idx + 1) % self.decoder_sparse_step == 0
