# SPDX-License-Identifier: Apache-2.0
"""Linear layer with an optional bias."""

from __future__ import annotations

from collections.abc import Sequence

from atb_core.graph.dtype import DataType
from atb_core.graph.tensor import Tensor
from atb_core.nn.functional import linear
from atb_core.nn.module import Module
from atb_core.nn.parameter import Parameter


class Linear(Module):
    """Multiplies x `[..., k]` by the transpose of `<prefix>.weight` `[n, k]` and adds `<prefix>.bias` `[n]`, if any.

    Args:
        prefix: name of the module in the checkpoint.
        bias: adds a bias.
        shape: `(n, k)`, or `None` if it is known only with the real weight.
        dtype: element type of weight and bias; `None` if it is known only with the real weight.
    """

    def __init__(
        self, prefix: str, bias: bool = False, shape: Sequence[int] | None = None, dtype: DataType | None = None
    ) -> None:
        super().__init__()
        self.weight = Parameter(prefix, "weight", shape, dtype)
        self.bias = Parameter(prefix, "bias", shape[:1] if shape is not None else None, dtype) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Records the layer: `[..., k]` -> `[..., n]`."""
        return linear(x, self.weight.get_tensor(), self.bias.get_tensor() if self.bias is not None else None)
