# SPDX-License-Identifier: Apache-2.0
"""What layers need to know of a configuration, of a model's sizes and of a checkpoint."""

from __future__ import annotations

from typing import Protocol

from atb_core.errors import ConfigError
from atb_core.graph.dtype import DataType


class LayerConfig(Protocol):
    """The fields of a model's configuration that layers read. Sizes are in elements."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int | None
    head_dim: int | None
    rms_norm_eps: float
    attention_bias: bool
    mlp_bias: bool
    use_qk_norm: bool

    @property
    def data_type(self) -> DataType:
        """Element type of the model's weights and activations."""
        ...


class MoeLayerConfig(LayerConfig, Protocol):
    """What layers with experts read besides."""

    num_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    shared_expert_intermediate_size: int
    norm_topk_prob: bool


class HeadCounts(Protocol):
    """Numbers of heads held by this process and the size of one."""

    @property
    def num_heads(self) -> int: ...

    @property
    def num_kv_heads(self) -> int: ...

    @property
    def head_dim(self) -> int: ...


class ShapeSource(Protocol):
    """The part of a weight loader that constructors use: shapes from the checkpoint's headers."""

    def shape(self, name: str) -> tuple[int, ...]: ...


def stored_shape(file_loader: ShapeSource | None, name: str) -> tuple[int, ...]:
    """The shape of `name` in the checkpoint, for layers that were not told their sizes."""
    if file_loader is None:
        raise ConfigError(
            f"the sizes of {name} are unknown: neither sizes nor a weight loader were given",
            hint="Pass in_features and out_features, or a loader to read the shape from.",
        )
    return tuple(file_loader.shape(name))
