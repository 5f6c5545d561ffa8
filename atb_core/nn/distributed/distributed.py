# SPDX-License-Identifier: Apache-2.0
"""Collectives while a model is recorded: those of its process group, in one process the identity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from atb_core.distributions import of_distribution
from atb_core.errors import AtbError, EngineError
from atb_core.graph.ops.comm import AllReduceType
from atb_core.graph.tensor import Tensor

__all__ = ["AllReduceType", "all_gather", "all_reduce", "get_rank", "get_world_size"]

#: What code written for ATB-Models calls to make groups, in `atb_ops.groups`.
_PORTED = ("get_backend", "init_process_group", "is_initialized", "new_group")
#: Handle of a group that needs no communication.
LOCAL_GROUP = "-1"


def __getattr__(name: str) -> Any:
    if name not in _PORTED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return of_distribution("atb_ops.groups", name)


class ProcessGroup(Protocol):
    """The processes that share a model, as the model's layers see them while they are recorded."""

    rank: int
    world_size: int

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Records the sum of `tensor` over the processes."""

    def all_gather(self, tensor: Tensor) -> Tensor:
        """Records `tensor` of all processes, in their order, under a new first dimension."""

    def gather_columns(self, tensor: Tensor, to_all: bool) -> Tensor:
        """Records the columns `[T, n]` of all processes side by side, if not `to_all` for rank 0 at least."""

    def shares(self, prefix: str) -> Sequence[tuple[Sequence[slice], slice]]:
        """Returns outputs of each matrix and inputs that each process has of a linear layer; the last has the ends."""


_group: ContextVar[ProcessGroup | None] = ContextVar("process_group", default=None)


@contextmanager
def recording_in(group: ProcessGroup | None) -> Iterator[None]:
    """Makes `group` the one of all layers and collectives that this thread makes meanwhile; `None`: one process."""
    token = _group.set(group)
    try:
        yield
    finally:
        _group.reset(token)


def check_single_process(world_size: int, rank: int, error: type[AtbError]) -> None:
    """Raises `error` for more than one process."""
    if world_size != 1:
        raise error(
            f"world_size = {world_size}: a process group is no argument here",
            hint="ModelRunner(path, tensor_parallel_size=2) starts the processes and their group.",
        )
    if rank != 0:
        raise error(f"rank = {rank} does not exist: with world_size = 1 the only rank is 0")


def get_world_size() -> int:
    """Returns the number of processes that share the model that is being recorded; else 1."""
    return getattr(_group.get(), "world_size", 1)


def get_rank() -> int:
    """Returns the index of this process among those that share the model that is being recorded; else 0."""
    return getattr(_group.get(), "rank", 0)


def all_reduce(
    send_tensor: Tensor, process_group: str | None = None, all_reduce_type: AllReduceType | str = AllReduceType.SUM
) -> Tensor:
    """Reduces `send_tensor` over the group; in a group of one process, returns it unchanged.

    Raises:
        EngineError: the group does not exist, or `all_reduce_type` is unknown or not the sum in a larger group.
    """
    _check_group(process_group)
    if getattr(all_reduce_type, "name", all_reduce_type) not in AllReduceType.__members__:
        known = ", ".join(AllReduceType.__members__)
        raise EngineError(f"all_reduce_type {all_reduce_type!r} is unknown; known: {known}")
    group = _group.get()
    if group is None:
        return send_tensor
    if all_reduce_type not in (AllReduceType.SUM, "SUM"):
        raise EngineError(f"all_reduce of {group.world_size} processes has no {all_reduce_type}: only SUM")
    return group.all_reduce(send_tensor)


def all_gather(send_tensor: Tensor, process_group: str | None = None) -> Tensor:
    """Gathers the group's tensors under a new first dimension; in a group of one process, returns it unchanged.

    Raises:
        EngineError: the group does not exist.
    """
    _check_group(process_group)
    group = _group.get()
    return send_tensor if group is None else group.all_gather(send_tensor)


def even_part(size: int, other: int) -> int:
    """Returns what a process has of `size`: all if it or the other size of a table cannot be divided evenly."""
    count = get_world_size()
    return size if size % count or other % count else size // count


def gather_columns(part: Tensor, size: int, to_all: bool = True) -> Tensor:
    """Joins the columns `[T, n]` of all processes to `[T, size]`; if not `to_all`, only rank 0 needs them."""
    group = _group.get()
    return part if group is None or (part.shape or ())[-1:] == (size,) else group.gather_columns(part, to_all)


def _check_group(process_group: str | None) -> None:
    """Raises EngineError for any group except the local one."""
    if process_group not in (None, LOCAL_GROUP):
        raise EngineError(f"there is no process group {process_group!r}")
