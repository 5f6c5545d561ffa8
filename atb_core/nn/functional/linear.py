# SPDX-License-Identifier: Apache-2.0
"""Matrix product and norm."""

from __future__ import annotations

from atb_core.graph.network import record
from atb_core.graph.ops.linear import Linear
from atb_core.graph.ops.norm import RmsNorm
from atb_core.graph.tensor import Tensor


def linear(
    input_: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    transpose_a: bool = False,
    transpose_b: bool = True,
) -> Tensor:
    """Returns `input_ [..., k]` times weight, `[n, k]` if `transpose_b` else `[k, n]`, plus bias `[n]`: `[..., n]`."""
    op = Linear(transpose_a, transpose_b, bias is not None)
    return record(op, (input_, weight) if bias is None else (input_, weight, bias))[0]


def rms_norm(input_: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Returns the root-mean-square norm of `input_ [..., h]` over the last dimension, times `weight [h]`."""
    return record(RmsNorm(eps), (input_, weight))[0]
