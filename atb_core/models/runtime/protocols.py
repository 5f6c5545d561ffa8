# SPDX-License-Identifier: Apache-2.0
"""The parts of a configuration and of a model's sizes that running it needs."""

from __future__ import annotations

from typing import Protocol

from atb_core.graph.dtype import DataType
from atb_core.models.runtime.rope_scaling import RopeScaling


class RopeConfig(Protocol):
    """The fields of a configuration that define rotary positions; `BaseConfig` has them."""

    head_dim: int | None
    max_position_embeddings: int
    rope_theta: float
    rope_scaling: RopeScaling | None


class RuntimeConfig(RopeConfig, Protocol):
    """The fields of a configuration that a step reads; `BaseConfig` has them."""

    vocab_size: int

    @property
    def data_type(self) -> DataType:
        """Returns the element type of weights, activations and KV cache."""
        ...


class DecoderSizes(Protocol):
    """The sizes that a decoder's inputs depend on; `ModelStatus` has them."""

    @property
    def num_layers(self) -> int: ...

    @property
    def num_kv_heads(self) -> int: ...

    @property
    def head_dim(self) -> int: ...
