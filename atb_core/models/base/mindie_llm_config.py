# SPDX-License-Identifier: Apache-2.0
"""The arguments of a model besides its weights: configuration, engine settings, place among processes."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from atb_core.errors import ConfigError
from atb_core.nn.distributed.mapping import Mapping

if TYPE_CHECKING:
    from typing_extensions import Self

    from atb_core.graph.dtype import DataType
    from atb_core.models.base.config import BaseConfig

__all__ = ["ConfigMetadata", "InferenceParameter", "MindIELLMConfig", "ModelStatus"]


@dataclass
class MindIELLMConfig:
    """Groups the checkpoint's configuration, the settings of the engine and the process mapping."""

    hf_config: BaseConfig
    llm_config: dict[str, Any] = field(default_factory=dict)
    mapping: Mapping = field(default_factory=Mapping)


@dataclass
class ModelStatus:
    """Sizes of the part of a model that this process holds; layers get it as `config_metadata`.

    The sizes are read-only under the names of `config.json` too, as in ATB-Models. A subclass may add fields.
    """

    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int

    @classmethod
    def from_config(cls, config: BaseConfig | MindIELLMConfig) -> Self:
        """Returns the sizes of the whole model, from the checkpoint's configuration or from what holds it."""
        if isinstance(config, MindIELLMConfig):
            config = config.hf_config
        assert config.num_key_value_heads is not None
        assert config.head_dim is not None
        return cls(config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads, config.head_dim)

    def of_layer(self, config: BaseConfig, layer_idx: int) -> Self:
        """Returns the sizes with the heads that `config.heads_of` gives layer `layer_idx`, if it gives any.

        Raises:
            ConfigError: such heads are impossible.
        """
        heads = config.heads_of(layer_idx)
        if heads is None:
            return self
        if min(heads) < 1 or heads.num_heads % heads.num_kv_heads or heads.head_dim % 2:
            raise ConfigError(
                f"layer {layer_idx} cannot have {heads.num_heads} heads of queries and {heads.num_kv_heads} of keys, "
                f"of {heads.head_dim} elements",
                hint="The first number must be a multiple of the second, and the third one even.",
            )
        own = copy.copy(self)
        vars(own).update(heads._asdict())
        return own

    num_hidden_layers = property(lambda self: self.num_layers)
    num_attention_heads = property(lambda self: self.num_heads)
    num_key_value_heads = property(lambda self: self.num_kv_heads)


ConfigMetadata = ModelStatus


@dataclass(frozen=True)
class InferenceParameter:
    """Decisions that are made when a model is opened, not by its checkpoint; layers get it as `infer_param`.

    `max_model_len` is the longest sequence in tokens that will be run.
    """

    dtype: DataType
    max_model_len: int
