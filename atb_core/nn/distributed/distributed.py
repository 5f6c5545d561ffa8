# SPDX-License-Identifier: Apache-2.0
"""Process groups of one process: every collective is the identity, anything larger is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from atb_core.errors import EngineError
from atb_core.graph.tensor import Tensor

#: Handle of a group that needs no communication.
LOCAL_GROUP = "-1"
REDUCE_TYPES = ("SUM", "PROD", "MAX", "MIN")


@dataclass(frozen=True)
class _World:
    backend: str
    size: int
    rank: int


_world: _World | None = None


def init_process_group(
    backend: str = "gloo", init_method: str = "", world_size: int = 1, rank: int = 0, buffer_size: int = 128
) -> None:
    """Declares this process's place. `init_method` and `buffer_size` (MiB) are for groups of more than one process.

    Raises:
        EngineError: more than one process, a rank outside the world, or a second initialisation.
    """
    global _world
    if _world is not None:
        raise EngineError("the process group has been initialised already")
    if world_size != 1:
        raise EngineError(
            f"world_size = {world_size}: tensor parallel is not available yet",
            hint="Run with world_size=1, one process for the whole model.",
        )
    if rank != 0:
        raise EngineError(f"rank {rank} does not exist in a world of {world_size} process")
    _world = _World(backend, world_size, rank)


def is_initialized() -> bool:
    """Returns true after `init_process_group`."""
    return _world is not None


def get_world_size() -> int:
    """Returns the number of processes, 1 before initialisation."""
    return _world.size if _world is not None else 1


def get_rank() -> int:
    """Returns this process's number, 0 before initialisation."""
    return _world.rank if _world is not None else 0


def get_backend(group: str = LOCAL_GROUP) -> str:
    """Returns the backend of a group.

    Raises:
        EngineError: before initialisation, or for a group that does not exist.
    """
    _check_group(group)
    if _world is None:
        raise EngineError("no process group has been initialised", hint="Call init_process_group first.")
    return _world.backend


def new_group(ranks: Sequence[int], backend: str | None = None, buffer_size: int = 128) -> str:
    """Returns the handle of a group of `ranks`. A group of one process uses neither `backend` nor `buffer_size`."""
    if any(rank != 0 for rank in ranks):
        raise EngineError(f"the group {list(ranks)} names ranks outside of a world of {get_world_size()} process")
    return LOCAL_GROUP


def all_reduce(send_tensor: Tensor, process_group: str | None = None, all_reduce_type: str = "SUM") -> Tensor:
    """Returns `send_tensor` reduced over the group: with one process, `send_tensor` itself."""
    _check_group(process_group)
    if all_reduce_type not in REDUCE_TYPES:
        raise EngineError(f"all_reduce_type {all_reduce_type!r} is unknown; known: {', '.join(REDUCE_TYPES)}")
    return send_tensor


def all_gather(send_tensor: Tensor, process_group: str | None = None) -> Tensor:
    """Returns the tensors of the group under a new first dimension: with one process, `send_tensor` itself."""
    _check_group(process_group)
    return send_tensor


def _check_group(process_group: str | None) -> None:
    if process_group not in (None, LOCAL_GROUP):
        raise EngineError(f"there is no process group {process_group!r}")
