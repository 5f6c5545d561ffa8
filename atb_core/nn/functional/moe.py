# SPDX-License-Identifier: Apache-2.0
"""Mixture of experts: choosing experts, grouping rows by expert, a product per expert, and the way back."""

from __future__ import annotations

from atb_core.errors import GraphError
from atb_core.graph.network import record
from atb_core.graph.ops.moe import GroupedMatmul, MoeInitRouting, MoeTokenUnpermute, MoeTopkSoftmax
from atb_core.graph.tensor import Tensor


def moe_topk_softmax(x: Tensor, k: int, normalize: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """The k best experts by router logits x [T, E]: weights float32 [T, k], expert_idx int32 [T, k], row_idx int32.

    Weights are probabilities among all experts, or among the k chosen ones with `normalize`; the first expert is
    the best one. row_idx [T, k] numbers the choices column by column.
    """
    weights, expert_idx, row_idx = record(MoeTopkSoftmax(k, normalize), (x,))
    return weights, expert_idx, row_idx


def moe_init_routing(x: Tensor, expert_idx: Tensor, topk_num: int, expert_num: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of x [T, h] grouped by expert, for expert_idx int32 [T, topk_num].

    Returns the rows [T*topk_num, h], the row of each choice int32 [T*topk_num] (for `moe_token_unpermute`), and
    where each expert's rows end, int64 [expert_num] (for `grouped_matmul`).
    """
    rows, places, group_list = record(MoeInitRouting(topk_num, expert_num), (x, expert_idx))
    return rows, places, group_list


def grouped_matmul(
    input_: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    group_list: Tensor | None = None,
    transpose_b: bool = False,
) -> Tensor:
    """Each group of rows of input_ [m, k] times its matrix of weight, [E, n, k] if `transpose_b` else [E, k, n].

    Group e ends before row group_list[e] (int64 [E], cumulative); bias is [E, n]. Returns [m, n].
    """
    if group_list is None:
        raise GraphError("grouped_matmul needs group_list", hint="moe_init_routing returns it as its third output")
    inputs = (input_, weight, group_list) if bias is None else (input_, weight, bias, group_list)
    return record(GroupedMatmul(transpose_b, bias is not None), inputs)[0]


def moe_token_unpermute(x: Tensor, row_idx: Tensor, probs: Tensor) -> Tensor:
    """Tokens [T, h] from the rows x [T*k, h] that belong to them: the sum of rows row_idx[t*k + j] times probs[t, j].

    row_idx int32 [T*k] is the second output of `moe_init_routing`, probs [T, k] the weights of the choices.
    """
    return record(MoeTokenUnpermute(), (x, row_idx, probs))[0]
