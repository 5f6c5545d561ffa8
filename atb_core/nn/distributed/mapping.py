# SPDX-License-Identifier: Apache-2.0
"""The rank of this process among those that serve one model."""

from __future__ import annotations

from dataclasses import dataclass

from atb_core.errors import RequestError
from atb_core.nn.distributed.distributed import LOCAL_GROUP, check_single_process

__all__ = ["Mapping"]


@dataclass(frozen=True)
class ParallelInfo:
    """One group of processes: its size, this process's rank in it, and its handle for `all_reduce` and `all_gather`."""

    rank: int = 0
    group_size: int = 1
    process_group: str = LOCAL_GROUP


_ALONE = ParallelInfo()


@dataclass(frozen=True)
class Mapping:
    """`rank` of `world_size` processes, with a group for each part of a model. Only one process is supported so far.

    Raises:
        RequestError: `world_size` is not 1, or `rank` is not 0.
    """

    world_size: int = 1
    rank: int = 0
    word_embed_tp: ParallelInfo = _ALONE
    attn_tp: ParallelInfo = _ALONE
    attn_dp: ParallelInfo = _ALONE
    mlp_tp: ParallelInfo = _ALONE
    moe_tp: ParallelInfo = _ALONE
    moe_ep: ParallelInfo = _ALONE
    lm_head_tp: ParallelInfo = _ALONE

    def __post_init__(self) -> None:
        check_single_process(self.world_size, self.rank, RequestError)
