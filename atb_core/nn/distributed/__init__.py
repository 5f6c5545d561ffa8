# SPDX-License-Identifier: Apache-2.0
"""Communication among the processes that serve one model."""

from atb_core.nn.distributed.distributed import (
    AllReduceType,
    all_gather,
    all_reduce,
    get_backend,
    get_rank,
    get_world_size,
    init_process_group,
    is_initialized,
    new_group,
)

__all__ = [
    "AllReduceType", "all_gather", "all_reduce", "get_backend", "get_rank", "get_world_size", "init_process_group",
    "is_initialized", "new_group",
]  # fmt: skip
