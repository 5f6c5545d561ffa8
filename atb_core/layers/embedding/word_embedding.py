# SPDX-License-Identifier: Apache-2.0
"""Token embeddings."""

from __future__ import annotations

from typing import Any

from atb_core.graph.tensor import Tensor
from atb_core.layers.base import LayerConfig, ShapeSource
from atb_core.nn.distributed import distributed
from atb_core.nn.functional import gather
from atb_core.nn.module import Module
from atb_core.nn.parameter import Parameter

__all__ = ["ParallelEmbedding"]


class ParallelEmbedding(Module):
    """The table `<prefix>.weight [vocab_size, hidden_size]`, of which each of several processes has columns.

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
        self.scale, self.width = scale, config.hidden_size
        shape = (config.vocab_size, distributed.even_part(self.width, config.vocab_size))
        self.weight = Parameter(prefix, "weight", shape, config.data_type)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Records the lookup: token ids `[T]` to `[T, hidden_size]`."""
        rows = distributed.gather_columns(gather(self.weight.get_tensor(), 0, input_ids), self.width)
        return rows if self.scale is None else rows * self.scale
