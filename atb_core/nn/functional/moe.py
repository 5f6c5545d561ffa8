# SPDX-License-Identifier: Apache-2.0
"""Mixture of experts: choosing experts, grouping rows by expert, a product per expert, and the way back."""

from __future__ import annotations

from atb_core.errors import GraphError
from atb_core.graph.network import record
from atb_core.graph.ops.moe import GroupedMatmul, MoeInitRouting, MoeTokenUnpermute, MoeTopkSoftmax
from atb_core.graph.tensor import Tensor


def moe_topk_softmax(input_: Tensor, k: int, normalize: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the k best experts by router logits `[T, E]`: weights float32, expert_idx int32, row_idx int32, `[T, k]`.

    Weights are probabilities among all experts, or among the k chosen ones with `normalize`; the first expert is
    the best one. row_idx [T, k] numbers the choices column by column.
    """
    weights, expert_idx, row_idx = record(MoeTopkSoftmax(k, normalize), (input_,))
    return weights, expert_idx, row_idx


def moe_init_routing(
    input_: Tensor, expert_idx: Tensor, topk_num: int, expert_num: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Groups the rows of `input_ [T, h]` by expert, for `expert_idx [T, topk_num]` int32.

    Returns the rows [T*topk_num, h], the row of each choice int32 [T*topk_num] (for `moe_token_unpermute`), and
    where each expert's rows end, int64 [expert_num] (for `grouped_matmul`).
    """
    rows, places, group_list = record(MoeInitRouting(topk_num, expert_num), (input_, expert_idx))
    return rows, places, group_list


def grouped_matmul(
    input_: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    group_list: Tensor | None = None,
    transpose_b: bool = False,
) -> Tensor:
    """Multiplies each group of rows of `input_ [m, k]` by its matrix: `[E, n, k]` if `transpose_b`, else `[E, k, n]`.

    Group e ends before row group_list[e] (int64 [E], cumulative); bias is [E, n]. Returns [m, n].
    """
    if group_list is None:
        raise GraphError("grouped_matmul needs group_list", hint="moe_init_routing returns it as its third output")
    inputs = (input_, weight, group_list) if bias is None else (input_, weight, bias, group_list)
    return record(GroupedMatmul(transpose_b, bias is not None), inputs)[0]


def moe_token_unpermute(permuted_tokens: Tensor, sorted_indices: Tensor, experts_weights: Tensor) -> Tensor:
    """Returns tokens `[T, h]`: for token t the sum over j of row `sorted_indices[t*k + j]` times its weight `[t, j]`.

    Args:
        permuted_tokens: `[T*k, h]`, rows grouped by expert.
        sorted_indices: `[T*k]` int32, the second output of `moe_init_routing`.
        experts_weights: `[T, k]`, the weights of the choices.
    """
    return record(MoeTokenUnpermute(), (permuted_tokens, sorted_indices, experts_weights))[0]
