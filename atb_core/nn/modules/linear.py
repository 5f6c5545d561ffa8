# SPDX-License-Identifier: Apache-2.0
"""A matrix product with a weight and an optional bias."""

from __future__ import annotations

from collections.abc import Sequence

from atb_core.graph.dtype import DataType
from atb_core.graph.tensor import Tensor
from atb_core.nn.functional import linear
from atb_core.nn.module import Module
from atb_core.nn.parameter import Parameter


class Linear(Module):
    """`x [..., k]` times the transpose of `<prefix>.weight [n, k]`, plus `<prefix>.bias [n]` if `bias`.

    Args:
        shape: `(n, k)`, `None` when it becomes known with the real weight.
    """

    def __init__(
        self, prefix: str, bias: bool = False, shape: Sequence[int] | None = None, dtype: DataType | None = None
    ) -> None:
        super().__init__()
        self.weight = Parameter(prefix, "weight", shape, dtype)
        self.bias = Parameter(prefix, "bias", shape[:1] if shape is not None else None, dtype) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight.get_tensor(), self.bias.get_tensor() if self.bias is not None else None)
