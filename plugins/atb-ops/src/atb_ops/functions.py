# SPDX-License-Identifier: Apache-2.0
"""Functions of ATB-Models that the core does not have, each composed of the core's.

What a backend cannot run of a composition, it refuses with the name of the op. Names and arguments are those of
`atb_llm.nn.functional`; the operations and their limits are described in the documentation of ATB, those of `std` and
`norm` (`aclnnStd`, `aclnnLinalgVectorNorm`) in that of CANN.
"""

from __future__ import annotations

from collections.abc import Sequence

from atb_core.errors import GraphError
from atb_core.graph import DataType, Tensor
from atb_core.nn.functional import (
    ActType,
    activation,
    amax,
    argsort,
    equal,
    gather,
    moe_init_routing,
    neg,
    reshape_and_cache,
    sort,
    sum_,
)

_MULTI_FLAGS = ("UNDEFINED", "SUM_MULTI_MAX")


def norm(input_: Tensor) -> Tensor:
    """Sums the absolute values of the last dimension, which stays with the size 1: `[..., n]` -> `[..., 1]`.

    This is the norm of order 1, the one that ATB-Models computes.
    """
    return _kept(sum_(activation(input_, ActType.RELU) + activation(neg(input_), ActType.RELU), -1))


def std(input_: Tensor) -> Tensor:
    """Computes the standard deviation over the last dimension, without Bessel's correction: `[..., n]` -> `[..., 1]`.

    The arithmetic is in float32, and the result has that type if the type of `input_` is not declared. No operation of
    ATB takes a root, so it is `exp(log(v) / 2)`, and `exp(t)` is `sigmoid(t) / sigmoid(-t)`.
    """
    x = input_.to(DataType.FLOAT)
    # A count instead of a constant, because the size need not be known yet.
    count = _kept(sum_(equal(x, x).to(DataType.FLOAT), -1))
    centred = x - _kept(sum_(x, -1)) / count
    log = activation(_kept(sum_(centred * centred, -1)) / count, ActType.LOG) * 0.5
    root = activation(log, ActType.SIGMOID) / activation(neg(log), ActType.SIGMOID)
    return root if input_.dtype is None else root.to(input_.dtype)


def copy_blocks(
    key_cache: Tensor, value_cache: Tensor, src_block_indices: Tensor, dst_block_indices: Tensor, cum_sum: Tensor
) -> None:
    """Copies blocks of the paged cache, in place, each to one or several others.

    Args:
        key_cache: `[num_blocks, block_size, kv_heads, head_dim]`, an input of the network.
        value_cache: the same for the values.
        src_block_indices: blocks that are read, int32 `[S]`; none of them may be written.
        dst_block_indices: blocks that are written, int32 `[D]`: those of source i end before `cum_sum[i]`.
        cum_sum: int32 `[S]`, ascending; the last one is D.
    """
    places = argsort(dst_block_indices - dst_block_indices)  # equal values keep their order: 0, 1, 2, ...
    passed = ~(cum_sum.reshape(lambda s: [*s, 1]) > places.reshape(lambda s: [1, *s]))
    blocks = gather(src_block_indices, 0, sum_(passed.to(DataType.INT32), 0))
    # With a whole block as one slot, a block's index is its slot.
    k_blocks, v_blocks = (cache.reshape(lambda s: [s[0], 1, s[1] * s[2], s[3]]) for cache in (key_cache, value_cache))
    k_rows, v_rows = (gather(cache, 0, blocks).reshape(lambda s: [s[0], s[2], s[3]]) for cache in (k_blocks, v_blocks))
    reshape_and_cache(k_rows, v_rows, k_blocks, v_blocks, dst_block_indices)


def group_topk(
    input_: Tensor, idx_arr: Tensor, group_num: int, k: int, group_multi_flag: str | int = "UNDEFINED", n: int = 1
) -> Tensor:
    """Sets the scores of all experts but those of the k best groups to 0, in place.

    Among equal groups, the first ones are kept.

    Args:
        input_: finite scores `[T, E]`, an input of the network with a declared type.
        idx_arr: 0, 1, 2, ... as int32, at least `group_num` of them; 1024 in ATB.
        group_num: number of groups, which divides E; expert e is in group `e // (E / group_num)`.
        k: number of groups that are kept.
        group_multi_flag: score of a group: `UNDEFINED` (0), its largest one, or `SUM_MULTI_MAX` (1), the sum of its
            n largest.
        n: number of scores that are added.

    Returns:
        The scores after the change, `[T, E]`.

    Raises:
        GraphError: the type of `input_` is not declared, or an argument is out of range.
    """
    if input_.dtype is None:
        raise GraphError("group_topk needs the type of its scores", hint='Declare it: Tensor("x", shape, dtype).')
    if not 1 <= k <= group_num or n < 1:
        raise GraphError(f"group_topk cannot keep {k} of {group_num} groups by their {n} largest scores")
    if group_multi_flag not in (*_MULTI_FLAGS, 0, 1):
        raise GraphError(f"group_multi_flag is {group_multi_flag!r}", hint=f"Known: {', '.join(_MULTI_FLAGS)}.")
    groups = input_.reshape(lambda s: [s[0], group_num, s[1] // group_num])
    summed = group_multi_flag in ("SUM_MULTI_MAX", 1)
    best = sort(sum_(sort(groups, n)[0], -1) if summed else amax(groups, -1), k)[1]
    numbers = idx_arr[:group_num].reshape([1, group_num, 1])
    kept = amax(equal(best.reshape(lambda s: [s[0], 1, s[1]]), numbers).to(DataType.FLOAT), -1)
    result = (groups * _kept(kept).to(input_.dtype)).reshape(lambda s: [s[0], s[1] * s[2]])
    result.write_inplace(input_)
    return result


def gating(
    topk: Tensor,
    idx_arr: Tensor,
    topk_expert_num: int,
    cum_sum_num: int,
    cum_sum_int64: bool = False,
    device_expert: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Orders the choices of all tokens by expert; those of one expert stay in the order of the tokens.

    Args:
        topk: chosen experts, int32 `[T*k]`, token by token.
        idx_arr: 0, 1, 2, ... as int32 `[T*k]`.
        topk_expert_num: k, the number of experts of a token.
        cum_sum_num: number of experts E.
        cum_sum_int64: makes the second result int64.
        device_expert: experts of this device (expert parallelism); refused unless empty.

    Returns:
        The token of each choice, int32 `[T*k]`; the cumulative number of choices up to and with each expert, int32 or
        int64 `[E]`; and the place of each choice in `topk`, int32 `[T*k]`.

    Raises:
        GraphError: experts of a device are given, or a number is out of range.
    """
    if device_expert:
        raise GraphError("gating with device_expert (expert parallelism) is not in this version")
    if not 1 <= topk_expert_num <= cum_sum_num:
        raise GraphError(f"gating cannot order choices of {topk_expert_num} experts of {cum_sum_num}")
    choices = topk.reshape([-1, topk_expert_num])
    first = amax(choices, -1)
    tokens = _kept(argsort(first - first)).repeat([1, topk_expert_num]).reshape([-1])
    order = argsort(topk)
    ends = moe_init_routing(choices.to(DataType.FLOAT), choices, topk_expert_num, cum_sum_num)[2]
    ends = ends if cum_sum_int64 else ends.to(DataType.INT32)
    return gather(tokens, 0, order), ends, gather(idx_arr, 0, order)


def _kept(reduced: Tensor) -> Tensor:
    """Returns a reduced tensor with a last dimension of size 1."""
    return reduced.reshape(lambda s: [*s, 1])
