# SPDX-License-Identifier: Apache-2.0
"""Mixture of experts: expert selection, grouping of rows by expert, grouped products, and the weighted sum.

Sequence of ops for T tokens that choose k of E experts each:

    weights, experts, _ = MoeTopkSoftmax(k)(logits [T, E])
    rows, places, ends  = MoeInitRouting(k, E)(x [T, h], experts)
    rows                = GroupedMatmul()(rows [T*k, h], weight [E, ...], group_list=ends)  # the expert's layers
    y                   = MoeTokenUnpermute()(rows [T*k, h], places, weights)
"""

from __future__ import annotations

from dataclasses import dataclass

from atb_core.graph.dim import Dim, Shape, shape_text
from atb_core.graph.op import Op, RealTensor, require, same_size


@dataclass(frozen=True)
class MoeTopkSoftmax(Op):
    """Selects the `topk_num` experts with the largest router logits of each token and computes their softmax weights.

    Logits x `[T, E]` (float32, bfloat16 or float16) -> weights float32 `[T, k]`, expert_idx int32 `[T, k]`, row_idx
    int32 `[T, k]`. Experts are in descending order of their logits; among equal logits the lowest index comes first;
    NaN counts as the largest value. `weights[t, j] = exp(x - max) / sum`, in float32, where the sum covers all E
    experts, or the k chosen ones with `normalize`. `row_idx[t, j] = j * T + t` numbers the choices column by column.
    """

    topk_num: int
    normalize: bool = False

    input_dtypes = ("float",)
    output_dtypes = ("float32", "int32", "int32")
    num_outputs = 3

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        (x,) = shapes
        require(len(x) == 2, f"x must be [tokens, experts], not {shape_text(x)}")
        require(self.topk_num >= 1, f"topk_num must be positive, not {self.topk_num}")
        experts = x[1]
        require(isinstance(experts, Dim) or self.topk_num <= experts, f"{self.topk_num} of only {experts} experts")
        return ((x[0], self.topk_num),) * 3

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        import torch

        x = inputs[0].float()
        tokens, count = x.shape[0], self.topk_num
        values, indices = (part[:, :count] for part in x.sort(dim=-1, descending=True, stable=True))
        among = values if self.normalize else x
        largest = x.amax(-1, keepdim=True)
        weights = (values - largest).exp() / (among - largest).exp().sum(-1, keepdim=True)
        rows = torch.arange(tokens * count, dtype=torch.int32, device=x.device).view(count, tokens).T
        return weights.contiguous(), indices.int().contiguous(), rows.contiguous()


@dataclass(frozen=True)
class MoeInitRouting(Op):
    """Copies each token's row once for every expert that it chose, grouped by expert.

    x `[T, h]`, expert_idx int32 `[T, k]` -> expanded_x `[T*k, h]` of x's dtype, expanded_row_idx int32 `[T*k]`,
    group_list int64 `[E]`. The rows of one expert are in the order of their tokens, then of the choices within a token.
    Choice j of token t is in row `expanded_row_idx[t*k + j]`; the rows of expert e end before `group_list[e]`
    (cumulative). An index outside of 0..E-1 is an error when the network runs.
    """

    topk_num: int
    expert_num: int

    input_names = ("x", "expert_idx")
    input_dtypes = ("any", "int32")
    output_dtypes = ("x", "int32", "int64")
    num_outputs = 3

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        x, chosen = shapes
        require(len(x) == 2, f"x must be [tokens, hidden], not {shape_text(x)}")
        require(self.topk_num >= 1, f"topk_num must be positive, not {self.topk_num}")
        require(self.expert_num >= 1, f"expert_num must be positive, not {self.expert_num}")
        wanted: Shape = (x[0], self.topk_num)
        require(chosen == wanted, f"expert_idx must be {shape_text(wanted)}, not {shape_text(chosen)}")
        rows = x[0] * self.topk_num
        return (rows, x[1]), (rows,), (self.expert_num,)

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        x, chosen = inputs[0], inputs[1].reshape(-1).long()
        if chosen.numel() and not (int(chosen.min()) >= 0 and int(chosen.max()) < self.expert_num):
            raise IndexError(f"an index of an expert is outside of 0..{self.expert_num - 1}")
        order = chosen.argsort(stable=True)
        ends = chosen.bincount(minlength=self.expert_num).cumsum(0)
        return x[order // self.topk_num].contiguous(), order.argsort().int(), ends


@dataclass(frozen=True)
class GroupedMatmul(Op):
    """Multiplies each group of rows by the matrix of its group, with float32 accumulation as in `Linear`.

    x `[m, k]`, weight `[E, k, n]` (`[E, n, k]` with `transpose_b`), bias `[E, n]` if `has_bias`, group_list int64 `[E]`
    -> `[m, n]` of x's dtype. group_list is cumulative: group e consists of the rows from `group_list[e - 1]` (0 for the
    first) up to `group_list[e]`, the last value is m, and groups may be empty. A group_list that decreases or does not
    end with m is an error when the network runs.
    """

    transpose_b: bool = False
    has_bias: bool = False

    input_names = ("x", "weight", "bias", "group_list")
    input_dtypes = ("float", "x", "float", "int64")

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        x, weight, groups = shapes[0], shapes[1], shapes[-1]
        require(len(x) == 2, f"x must have two dimensions, not {shape_text(x)}")
        require(len(weight) == 3, f"weight must have three dimensions, not {shape_text(weight)}")
        experts = weight[0]
        n, k = weight[1:] if self.transpose_b else weight[:0:-1]
        same_size(x[1], k, f"x {shape_text(x)} and weight {shape_text(weight)} disagree over k")
        if self.has_bias:
            wanted: Shape = (experts, n)
            require(shapes[2] == wanted, f"bias must be {shape_text(wanted)}, not {shape_text(shapes[2])}")
        require(groups == (experts,), f"group_list must be {shape_text((experts,))}, not {shape_text(groups)}")
        return ((x[0], n),)

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        x, weight, ends = inputs[0].float(), inputs[1], inputs[-1].tolist()
        starts = [0, *ends[:-1]]
        if any(start > end for start, end in zip(starts, ends, strict=True)) or (ends[-1] if ends else 0) != len(x):
            raise ValueError(f"group_list must not decrease and must end with the {len(x)} rows of x: {ends}")
        y = inputs[0].new_empty(len(x), weight.shape[1 if self.transpose_b else 2])
        for expert, (start, end) in enumerate(zip(starts, ends, strict=True)):
            matrix = weight[expert].float()
            part = x[start:end] @ (matrix.T if self.transpose_b else matrix)
            y[start:end] = (part + inputs[2][expert].float() if self.has_bias else part).to(y.dtype)
        return (y,)


@dataclass(frozen=True)
class MoeTokenUnpermute(Op):
    """Computes the weighted sum of each token's rows: `y[t] = sum over j of probs[t, j] * x[row_idx[t*k + j]]`.

    x `[T*k, h]`, row_idx int32 `[T*k]`, probs `[T, k]` (a floating-point type) -> `[T, h]` of x's dtype. The sum is
    computed in float32, in ascending order of j, and rounded once. An index outside of x is an error when the network
    runs.
    """

    input_names = ("x", "row_idx", "probs")
    input_dtypes = ("float", "int32", "float")

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        x, rows, probs = shapes
        require(len(x) == 2, f"x must have two dimensions, not {shape_text(x)}")
        require(len(probs) == 2, f"probs must be [tokens, k], not {shape_text(probs)}")
        chosen = probs[0] * probs[1]
        require(rows == (chosen,), f"row_idx must be {shape_text((chosen,))}, not {shape_text(rows)}")
        same_size(x[0], chosen, f"x {shape_text(x)} and probs {shape_text(probs)} disagree over the number of rows")
        return ((probs[0], x[1]),)

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        x, rows, probs = inputs[0].float(), inputs[1].long(), inputs[2].float()
        if rows.numel() and not (int(rows.min()) >= 0 and int(rows.max()) < len(x)):
            raise IndexError(f"an index of a row is outside of 0..{len(x) - 1}")
        taken = x[rows].view(*probs.shape, x.shape[1])
        return ((taken * probs.unsqueeze(-1)).sum(1).to(inputs[0].dtype),)
