# SPDX-License-Identifier: Apache-2.0
"""Matrix product and RMS norm."""

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
    """Multiplies by a weight and adds a bias.

    input_ `[..., k]`, weight `[n, k]` with `transpose_b`, else `[k, n]`, bias `[n]` -> `[..., n]`.
    """
    op = Linear(transpose_a, transpose_b, bias is not None)
    return record(op, (input_, weight) if bias is None else (input_, weight, bias))[0]


def rms_norm(input_: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Normalizes the last dimension by its root mean square: input_ `[..., h]`, weight `[h]` -> `[..., h]`."""
    return record(RmsNorm(eps), (input_, weight))[0]
