# SPDX-License-Identifier: Apache-2.0
"""The table of token embeddings."""

from __future__ import annotations

from typing import Any

from atb_core.graph.tensor import Tensor
from atb_core.layers.base import LayerConfig, ShapeSource
from atb_core.nn.functional import gather
from atb_core.nn.module import Module
from atb_core.nn.parameter import Parameter

__all__ = ["ParallelEmbedding"]


class ParallelEmbedding(Module):
    """Rows of `<prefix>.weight [vocab_size, hidden_size]`: token ids `[T]` to `[T, hidden_size]`."""

    def __init__(self, config: LayerConfig, file_loader: ShapeSource | None, prefix: str, **kwargs: Any) -> None:
        super().__init__()
        shape = (config.vocab_size, config.hidden_size)
        self.weight = Parameter(prefix, "weight", shape, config.data_type)

    def forward(self, input_ids: Tensor) -> Tensor:
        return gather(self.weight.get_tensor(), 0, input_ids)
