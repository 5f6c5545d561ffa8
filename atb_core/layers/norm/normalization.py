# SPDX-License-Identifier: Apache-2.0
"""Root-mean-square normalization."""

from __future__ import annotations

from typing import Any

import numpy as np

from atb_core.graph.dtype import DataType
from atb_core.graph.tensor import Tensor
from atb_core.layers.base import LayerConfig, ShapeSource, adds_bias
from atb_core.nn.functional import rms_norm
from atb_core.nn.module import Module
from atb_core.nn.parameter import Parameter

__all__ = ["RmsNorm"]


class RmsNorm(Module):
    """Normalizes the last dimension by its root mean square, with `<prefix>.weight [size]`.

    Quantised checkpoints may have a `<prefix>.bias`, which is added.

    Args:
        size: the last dimension; `config.hidden_size` by default.
        offset: number to add to the weight when it is loaded: 1 for checkpoints that hold `weight - 1`.
        dtype: element type of the weight, by default the model's; float32 keeps the sum exact, except on Ascend.
    """

    def __init__(
        self,
        config: LayerConfig,
        file_loader: ShapeSource | None,
        prefix: str,
        *,
        size: int | None = None,
        offset: float = 0.0,
        dtype: DataType | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.eps = config.rms_norm_eps
        self.weight = Parameter(prefix, "weight", (size or config.hidden_size,), dtype or config.data_type)
        added = adds_bias(file_loader, prefix)
        self.bias = Parameter(prefix, "bias", self.weight.declared_shape, self.weight.declared_dtype) if added else None
        if offset:
            self.weight.register_processor(lambda weight: weight.astype(np.float32) + np.float32(offset))

    def forward(self, x: Tensor) -> Tensor:
        """Records the norm: `[..., size]` to the same shape."""
        normed = rms_norm(x, self.weight.get_tensor(), self.eps)
        return normed if self.bias is None else normed + self.bias.get_tensor()
