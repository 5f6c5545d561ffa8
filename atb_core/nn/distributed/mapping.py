# SPDX-License-Identifier: Apache-2.0
"""The rank of this process among those that serve one model."""

from __future__ import annotations

from dataclasses import dataclass, field

from atb_core.errors import RequestError
from atb_core.nn.distributed.distributed import LOCAL_GROUP, ProcessGroup, check_single_process

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
    """`rank` of `world_size` processes, with a group for each part of a model.

    Attributes:
        group: the processes that divide the layers; `None`: this process has the whole model.

    Raises:
        RequestError: there are several processes and no `group`, or another one.
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
    group: ProcessGroup | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.group is not None and (self.group.world_size, self.group.rank) == (self.world_size, self.rank):
            return
        check_single_process(self.world_size, self.rank, RequestError)
