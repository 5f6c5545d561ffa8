# SPDX-License-Identifier: Apache-2.0
"""Primitive modules: one op with its weights; loading is not part of them."""

from __future__ import annotations

from collections.abc import Sequence

from atb_core.graph.dtype import DataType
from atb_core.graph.tensor import Tensor
from atb_core.nn.functional import linear, rms_norm
from atb_core.nn.module import Module, ModuleDict, ModuleList
from atb_core.nn.parameter import Parameter

__all__ = ["Linear", "Module", "ModuleDict", "ModuleList", "RmsNorm"]


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


class RmsNorm(Module):
    """Normalizes x `[..., h]`: `x / sqrt(mean(x^2) + eps) * weight`, with the weight `<prefix>.weight` `[h]`.

    Args:
        prefix: name of the module in the checkpoint.
        eps: value added to the mean of the squares.
        size: `h`, or `None` if it is known only with the real weight.
        dtype: element type of the weight; `None` if it is known only with the real weight.
    """

    def __init__(self, prefix: str, eps: float = 1e-6, size: int | None = None, dtype: DataType | None = None) -> None:
        super().__init__()
        self.weight = Parameter(prefix, "weight", None if size is None else (size,), dtype)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Records the norm: `[..., h]` -> `[..., h]`."""
        return rms_norm(x, self.weight.get_tensor(), self.eps)
