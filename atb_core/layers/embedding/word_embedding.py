# SPDX-License-Identifier: Apache-2.0
"""Token embeddings."""

from __future__ import annotations

from typing import Any

from atb_core.graph.tensor import Tensor
from atb_core.layers.base import LayerConfig, ShapeSource
from atb_core.nn.functional import gather
from atb_core.nn.module import Module
from atb_core.nn.parameter import Parameter

__all__ = ["ParallelEmbedding"]


class ParallelEmbedding(Module):
    """The table `<prefix>.weight [vocab_size, hidden_size]`.

    Args:
        scale: factor of the rows; a matrix of logits that shares the table does not have it.
    """

    def __init__(
        self,
        config: LayerConfig,
        file_loader: ShapeSource | None,
        prefix: str,
        *,
        scale: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.weight = Parameter(prefix, "weight", (config.vocab_size, config.hidden_size), config.data_type)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Records the lookup: token ids `[T]` to `[T, hidden_size]`."""
        rows = gather(self.weight.get_tensor(), 0, input_ids)
        return rows if self.scale is None else rows * self.scale
