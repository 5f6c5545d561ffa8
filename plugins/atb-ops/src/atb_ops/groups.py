# SPDX-License-Identifier: Apache-2.0
"""Process groups as code written for ATB-Models makes them: here of one process, which needs no communication."""

from __future__ import annotations

from collections.abc import Sequence

from atb_core.errors import EngineError
from atb_core.nn.distributed.distributed import LOCAL_GROUP, check_single_process, get_world_size

# The backend's name once a group is initialized.
_backend: str | None = None


def init_process_group(
    backend: str = "gloo", init_method: str = "", world_size: int = 1, rank: int = 0, buffer_size: int = 128
) -> None:
    """Declares the rank and size of the process group.

    Args:
        backend: name that `get_backend` returns.
        init_method: rendezvous of the processes; a single process does not use it.
        world_size: number of processes; only 1 is supported.
        rank: index of this process.
        buffer_size: MiB for messages; a single process does not use it.

    Raises:
        EngineError: `world_size` is not 1, `rank` is outside of the group, or a group is already initialized.
    """
    global _backend
    if _backend is not None:
        raise EngineError("the process group is already initialized")
    check_single_process(world_size, rank, EngineError)
    _backend = backend


def is_initialized() -> bool:
    """Returns `True` after `init_process_group`."""
    return _backend is not None


def get_backend(group: str = LOCAL_GROUP) -> str:
    """Returns the backend of a group.

    Raises:
        EngineError: no group is initialized, or the group does not exist.
    """
    if group != LOCAL_GROUP:
        raise EngineError(f"there is no process group {group!r}")
    if _backend is None:
        raise EngineError("no process group is initialized", hint="Call init_process_group first.")
    return _backend


def new_group(ranks: Sequence[int], backend: str | None = None, buffer_size: int = 128) -> str:
    """Returns the handle of a group of `ranks`; a group of one process uses neither `backend` nor `buffer_size`.

    Raises:
        EngineError: a rank is outside of the world.
    """
    if any(rank != 0 for rank in ranks):
        raise EngineError(f"the group {list(ranks)} contains ranks outside of a world of {get_world_size()} process")
    return LOCAL_GROUP
