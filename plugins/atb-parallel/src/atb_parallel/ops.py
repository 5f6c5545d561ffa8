# SPDX-License-Identifier: Apache-2.0
"""The ops over the processes of a group: the sum, and what each of them has."""

from __future__ import annotations

import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np

from atb_core.engine.kernel_abi import KernelCall
from atb_core.engine.kernels import CpuKernel, register_cpu_kernel
from atb_core.errors import EngineError
from atb_core.graph.arrays import HostArray, numpy_dtype, to_numpy, to_torch
from atb_core.graph.dim import Shape
from atb_core.graph.network import get_default_net, record
from atb_core.graph.op import Op, RealTensor
from atb_core.graph.ops import AllGather as DeviceAllGather
from atb_core.graph.ops import AllReduce as DeviceAllReduce
from atb_core.graph.ops.comm import CommBackend
from atb_core.graph.tensor import Tensor

if TYPE_CHECKING:
    from atb_parallel.shards import Share

_numbers = itertools.count(1)
_groups: WeakValueDictionary[int, Communicator] = WeakValueDictionary()


def device_library() -> CommBackend:
    """Returns the library by which devices sum, `ATB_COMM_BACKEND`, by default HCCL; EngineError for others."""
    name = os.environ.get("ATB_COMM_BACKEND") or "hccl"
    if name not in ("hccl", "lccl"):
        raise EngineError(f"ATB_COMM_BACKEND={name!r:.40} is neither hccl nor lccl", hint="Unset it, or set one.")
    return CommBackend(name)


class Communicator(ABC):
    """One process of a group: the interface that the ops call while a step runs.

    Args:
        rank: number of this process in the group.
        world_size: number of processes in the group.

    Attributes:
        linears: what each process has of each linear layer of the model, by its name.
        domain: name of the group among those of the machine where devices sum; `None`: the processes do.
    """

    def __init__(self, rank: int, world_size: int, domain: str | None = None) -> None:
        self.rank = rank
        self.world_size = world_size
        self.domain = domain
        self.linears: Mapping[str, Sequence[Share]] = {}
        self._number = next(_numbers)
        _groups[self._number] = self

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Records the sum of `tensor` over the processes; what is such a sum is returned as it is.

        Row-parallel layers sum. Those of ATB-Models do not, and models written for it sum their results themselves.
        """
        node = get_default_net().producer(tensor)
        if node is not None and isinstance(node.op, AllReduce | DeviceAllReduce):
            return tensor
        if self.domain is not None:
            return record(DeviceAllReduce(**self._on_devices()), (tensor,))[0]
        register_cpu_kernel(AllReduce, _KERNELS[AllReduce])
        return record(AllReduce(self._number), (tensor,))[0]

    def all_gather(self, tensor: Tensor) -> Tensor:
        """Records `tensor` of all processes, in their order, under a new first dimension."""
        if self.domain is not None:
            return record(DeviceAllGather(**self._on_devices()), (tensor,))[0]
        register_cpu_kernel(AllGather, _KERNELS[AllGather])
        return record(AllGather(self._number, self.world_size), (tensor,))[0]

    def gather_columns(self, tensor: Tensor, to_all: bool) -> Tensor:
        """Records the columns `[T, n]` of all processes side by side; if not `to_all`, ranks above 0 may have zeros."""
        if self.domain is None:
            register_cpu_kernel(GatherColumns, _KERNELS[GatherColumns])
            return record(GatherColumns(self._number, self.world_size, to_all), (tensor,))[0]
        assert tensor.shape is not None
        rows, columns = tensor.shape
        return self.all_gather(tensor).permute((1, 0, 2)).reshape((rows, self.world_size * columns))

    def _on_devices(self) -> dict[str, Any]:
        return {
            "rank": self.rank, "rank_size": self.world_size, "backend": device_library(), "comm_domain": self.domain,
            "rank_table_file": os.environ.get("RANK_TABLE_FILE", ""),
        }  # fmt: skip

    def shares(self, prefix: str) -> Sequence[Share]:
        """Returns what each process has of a linear layer: outputs of each matrix, and inputs."""
        return self.linears[prefix]

    @abstractmethod
    def sum(self, part: HostArray, total: HostArray) -> None:
        """Writes the sum of all processes' `part` into `total`: in float32, in the order of the ranks, rounded once.

        Raises:
            EngineError: another process ended or failed.
        """

    @abstractmethod
    def gather(self, part: HostArray, whole: HostArray, to_all: bool = True) -> None:
        """Writes `part` of all processes into `whole [world_size, ...]`, in the order of the ranks; raises as `sum`.

        Args:
            part: what this process has.
            whole: the result; of zeros in processes above 0 if not `to_all`.
            to_all: every process gets it.
        """


@dataclass(frozen=True)
class AllReduce(Op, namespace="atb_parallel"):
    """Sums x over the processes of a group: `[...]` -> `[...]`.

    Attributes:
        group: number of the group in this process.
    """

    group: int = 0

    input_dtypes = ("float",)

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        """Returns the shape of x."""
        return (shapes[0],)

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        """Returns the sum."""
        part = to_numpy(inputs[0].contiguous())
        _group_of(self.group).sum(part, total := np.empty_like(part))
        return (to_torch(total),)


@dataclass(frozen=True)
class AllGather(Op, namespace="atb_parallel"):
    """Gathers x of the processes of a group, in their order: `[...]` -> `[world_size, ...]`.

    Attributes:
        group: number of the group in this process.
        world_size: number of its processes.
    """

    group: int = 0
    world_size: int = 1

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        """Returns the shape of x under a new first dimension."""
        return ((self.world_size, *shapes[0]),)

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        """Returns all of x."""
        part = to_numpy(inputs[0].contiguous())
        _group_of(self.group).gather(part, whole := np.empty((self.world_size, *part.shape), part.dtype))
        return (to_torch(whole),)


@dataclass(frozen=True)
class GatherColumns(Op, namespace="atb_parallel"):
    """Joins the columns of x of the processes of a group: `[T, n]` -> `[T, world_size * n]`.

    Attributes:
        group: number of the group in this process.
        world_size: number of its processes.
        to_all: every process gets them; else rank 0 does, and the others get zeros.
    """

    group: int = 0
    world_size: int = 1
    to_all: bool = True

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        """Returns the shape of x with all columns."""
        rows, columns = shapes[0]
        return ((rows, self.world_size * columns),)

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        """Returns all columns."""
        part = to_numpy(inputs[0].contiguous())
        whole = np.empty((len(part), self.world_size * part.shape[1]), part.dtype)
        _join_columns(_group_of(self.group), part, whole, self.to_all)
        return (to_torch(whole),)


def _join_columns(group: Communicator, part: HostArray, whole: HostArray, to_all: bool = True) -> None:
    by_rank = whole.reshape(len(part), group.world_size, part.shape[1]).swapaxes(0, 1)
    group.gather(part, by_rank, to_all)


def _group_of(number: int) -> Communicator:
    communicator = _groups.get(number)
    if communicator is None:
        raise EngineError("the group of processes that divided the model was closed")
    return communicator


def _kernel(action: Callable[..., None], *options: str) -> Any:
    """Returns a kernel that does `action` with the group, the input and the output of an op, and attributes of it."""

    def run(call: KernelCall) -> None:
        # One of the engine's threads talks to the other processes.
        if call.part == 0:
            dtype = numpy_dtype(call.inputs[0].dtype)
            arrays = (each.array().view(dtype) for each in (call.inputs[0], call.outputs[0]))
            group = _group_of(int(call.attributes["group"]))  # type: ignore[arg-type]
            action(group, *arrays, *map(call.attributes.get, options))

    return CpuKernel.from_python(run)


_KERNELS = {
    AllReduce: _kernel(lambda group, part, total: group.sum(part, total)),
    AllGather: _kernel(lambda group, part, whole: group.gather(part, whole)),
    GatherColumns: _kernel(_join_columns, "to_all"),
}
