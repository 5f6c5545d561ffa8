# SPDX-License-Identifier: Apache-2.0
"""Mixture of experts: expert selection, grouping of rows by expert, grouped products, and the weighted sum."""

from __future__ import annotations

from atb_core.errors import GraphError
from atb_core.graph.network import record
from atb_core.graph.ops.moe import GroupedMatmul, MoeInitRouting, MoeTokenUnpermute, MoeTopkSoftmax
from atb_core.graph.tensor import Tensor

__all__ = ["grouped_matmul", "moe_init_routing", "moe_token_unpermute", "moe_topk_softmax"]


def moe_topk_softmax(input_: Tensor, k: int, normalize: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Selects the k experts with the largest router logits of each token, the best one first.

    Args:
        input_: router logits `[T, E]`.
        k: number of experts for each token.
        normalize: computes the weights among the k selected experts instead of all E.

    Returns:
        weights float32 `[T, k]`, expert_idx int32 `[T, k]` and row_idx int32 `[T, k]`, which numbers the choices column
        by column.
    """
    weights, expert_idx, row_idx = record(MoeTopkSoftmax(k, normalize), (input_,))
    return weights, expert_idx, row_idx


def moe_init_routing(
    input_: Tensor, expert_idx: Tensor, topk_num: int, expert_num: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Groups rows by the experts that their tokens chose.

    Args:
        input_: rows `[T, h]`.
        expert_idx: chosen experts, int32 `[T, topk_num]`.
        topk_num: number of experts for each token.
        expert_num: number of experts.

    Returns:
        The rows `[T*topk_num, h]`, the row of each choice, int32 `[T*topk_num]` (for `moe_token_unpermute`), and the
        cumulative end of each expert's rows, int64 `[expert_num]` (for `grouped_matmul`).
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
    """Multiplies each group of rows by the matrix of its group.

    Args:
        input_: rows `[m, k]`.
        weight: matrices `[E, n, k]` with `transpose_b`, else `[E, k, n]`.
        bias: `[E, n]`, or `None`.
        group_list: cumulative ends of the groups, int64 `[E]`; required.
        transpose_b: weight is `[E, n, k]`.

    Returns:
        `[m, n]`.

    Raises:
        GraphError: `group_list` is missing.
    """
    if group_list is None:
        raise GraphError("grouped_matmul needs group_list", hint="It is the third output of moe_init_routing.")
    inputs = (input_, weight, group_list) if bias is None else (input_, weight, bias, group_list)
    return record(GroupedMatmul(transpose_b, bias is not None), inputs)[0]


def moe_token_unpermute(permuted_tokens: Tensor, sorted_indices: Tensor, experts_weights: Tensor) -> Tensor:
    """Computes the weighted sum of each token's rows.

    Row t is the sum over j of `experts_weights[t, j] * permuted_tokens[sorted_indices[t*k + j]]`.

    Args:
        permuted_tokens: rows `[T*k, h]`, grouped by expert.
        sorted_indices: row of each choice, int32 `[T*k]`; the second output of `moe_init_routing`.
        experts_weights: weights of the choices `[T, k]`.

    Returns:
        `[T, h]`.
    """
    return record(MoeTokenUnpermute(), (permuted_tokens, sorted_indices, experts_weights))[0]
