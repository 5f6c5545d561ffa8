# SPDX-License-Identifier: Apache-2.0
"""Root-mean-square normalisation with a weight."""

from __future__ import annotations

from atb_core.graph.dtype import DataType
from atb_core.graph.tensor import Tensor
from atb_core.nn.functional import rms_norm
from atb_core.nn.module import Module
from atb_core.nn.parameter import Parameter


class RmsNorm(Module):
    """`x [..., h]` divided by the root of its mean square plus `eps`, times `<prefix>.weight [h]`."""

    def __init__(self, prefix: str, eps: float = 1e-6, size: int | None = None, dtype: DataType | None = None) -> None:
        super().__init__()
        self.weight = Parameter(prefix, "weight", None if size is None else (size,), dtype)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight.get_tensor(), self.eps)
