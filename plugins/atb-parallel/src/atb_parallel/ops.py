# SPDX-License-Identifier: Apache-2.0
"""The op that sums over the processes of a group."""

from __future__ import annotations

import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np

from atb_core.engine.kernel_abi import KernelCall
from atb_core.engine.kernels import CpuKernel, register_cpu_kernel
from atb_core.errors import EngineError
from atb_core.graph.arrays import HostArray, numpy_dtype, to_numpy, to_torch
from atb_core.graph.dim import Shape
from atb_core.graph.network import record
from atb_core.graph.op import Op, RealTensor
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
    """One process of a group: the interface that the op `AllReduce` calls while a step runs.

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
        """Records the sum of `tensor` over the processes."""
        if self.domain is not None:
            op = DeviceAllReduce(
                self.rank,
                self.world_size,
                device_library(),
                comm_domain=self.domain,
                rank_table_file=os.environ.get("RANK_TABLE_FILE", ""),
            )
            return record(op, (tensor,))[0]
        _register()
        return record(AllReduce(self._number), (tensor,))[0]

    def shares(self, prefix: str) -> Sequence[Share]:
        """Returns what each process has of a linear layer: outputs of each matrix, and inputs."""
        return self.linears[prefix]

    @abstractmethod
    def sum(self, part: HostArray, total: HostArray) -> None:
        """Writes the sum of all processes' `part` into `total`: in float32, in the order of the ranks, rounded once.

        Raises:
            EngineError: another process ended or failed.
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
        total = np.empty_like(part)
        _sum(self.group, part, total)
        return (to_torch(total),)


def _sum(group: int, part: HostArray, total: HostArray) -> None:
    communicator = _groups.get(group)
    if communicator is None:
        raise EngineError("the group of processes that divided the model was closed")
    communicator.sum(part, total)


def _run(call: KernelCall) -> None:
    # One of the engine's threads talks to the other processes.
    if call.part == 0:
        source, target = call.inputs[0], call.outputs[0]
        dtype = numpy_dtype(source.dtype)
        _sum(int(call.attributes["group"]), source.array().view(dtype), target.array().view(dtype))  # type: ignore[arg-type]


_KERNEL: Any = CpuKernel.from_python(_run)


def _register() -> None:
    register_cpu_kernel(AllReduce, _KERNEL)
