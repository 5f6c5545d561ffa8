# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding."""

from __future__ import annotations

from dataclasses import dataclass

from atb_core.graph.dim import Dim, Shape, shape_text
from atb_core.graph.op import Op, RealTensor, require, same_size


@dataclass(frozen=True)
class Rope(Op):
    """Rotates the heads of q and k by the angles of their tokens (RoPE, Su et al. 2021).

    q `[T, heads * head_dim]`, k `[T, kv_heads * head_dim]`, cos and sin `[T, head_dim]` (a row for each token, both
    halves filled), seqlen int32 `[B]` (part of ATB's operation, not used in the computation) -> rotated q and k.
    `rotary_coeff` 2 pairs element i with `i + head_dim / 2`; `rotary_coeff` head_dim pairs neighbours (2i, 2i + 1).
    """

    rotary_coeff: int = 2

    input_names = ("q", "k", "cos", "sin", "seqlen")
    input_dtypes = ("float", "q", "q|float32", "cos")
    output_dtypes = ("q", "k")
    num_outputs = 2

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        q, k, cos, sin, _ = shapes
        require(all(len(s) == 2 for s in (q, k, cos, sin)), "q, k, cos and sin must have two dimensions")
        require(cos == sin, f"cos {shape_text(cos)} and sin {shape_text(sin)} differ")
        head = cos[1]
        for name, shape in (("q", q), ("k", k)):
            same_size(shape[0], cos[0], f"tokens of {name} and of cos")
            if not isinstance(shape[1], Dim) and not isinstance(head, Dim):
                require(shape[1] % head == 0, f"{name} is {shape[1]} wide, not a multiple of head_dim {head}")
        if not isinstance(head, Dim):
            require(head % 2 == 0, f"head_dim {head} is odd")
            require(self.rotary_coeff in (2, head), f"rotary_coeff must be 2 or head_dim, {head}")
        return q, k

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        q, k, cos, sin, _ = inputs
        return self._rotate(q, cos.float(), sin.float()), self._rotate(k, cos.float(), sin.float())

    def _rotate(self, x: RealTensor, cos: RealTensor, sin: RealTensor) -> RealTensor:
        """Returns the rotated heads of `x` `[T, n * head_dim]`, rounded to its dtype."""
        import torch

        size = cos.shape[1]
        heads = x.float().view(x.shape[0], -1, size)
        if self.rotary_coeff == 2:
            first, second = heads.chunk(2, dim=-1)
            swapped = torch.cat((-second, first), dim=-1)
        else:
            pairs = heads.view(*heads.shape[:-1], size // 2, 2)
            swapped = torch.stack((-pairs[..., 1], pairs[..., 0]), dim=-1).view_as(heads)
        rotated = heads * cos[:, None, :] + swapped * sin[:, None, :]
        return rotated.reshape(x.shape).to(x.dtype)
