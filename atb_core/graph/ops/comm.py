# SPDX-License-Identifier: Apache-2.0
"""Collectives of a tensor-parallel group; attributes are ATB's communication parameters."""

from __future__ import annotations

from dataclasses import dataclass

from atb_core.errors import GraphError
from atb_core.graph.dim import Shape
from atb_core.graph.dtype import AttributeEnum
from atb_core.graph.op import Op, RealTensor
from atb_core.graph.ops.linear import Linear


class CommBackend(AttributeEnum):
    """Communication libraries: HCCL; within one server LCCL, and LCOC of `LinearParallel` (not on 300I Duo)."""

    HCCL = "hccl"
    LCCL = "lccl"
    LCOC = "lcoc"


class CommMode(AttributeEnum):
    """Form of the ranks: processes, as in serving, or threads of one process."""

    MULTI_PROCESS = "COMM_MULTI_PROCESS"
    MULTI_THREAD = "COMM_MULTI_THREAD"


@dataclass(frozen=True)
class _Collective(Op, abstract=True):
    """Base of the collectives.

    Attributes:
        rank: index of this rank in the group.
        rank_size: number of ranks in the group.
        backend: library that transfers the data.
        comm_mode: form of the ranks.
        comm_domain: name of the group among the groups of one process.
        rank_table_file: file that lists the servers, for HCCL.
    """

    rank: int = 0
    rank_size: int = 1
    backend: CommBackend = CommBackend.HCCL
    comm_mode: CommMode = CommMode.MULTI_PROCESS
    comm_domain: str = ""
    rank_table_file: str = ""

    enums = Op.enums + (("backend", CommBackend), ("comm_mode", CommMode))

    def check_attributes(self) -> None:
        if not 0 <= self.rank < self.rank_size:
            raise GraphError(f"rank {self.rank} does not exist in a group of {self.rank_size}")

    def _require_alone(self) -> None:
        if self.rank_size != 1:
            raise ValueError(
                f"{self.name} of {self.rank_size} ranks: the reference runs in one process and cannot communicate"
            )


class AllReduceType(AttributeEnum):
    """Operations that combine the values of the ranks."""

    SUM = "sum"
    PROD = "prod"
    MAX = "max"
    MIN = "min"


@dataclass(frozen=True)
class AllReduce(_Collective):
    """Combines x of all ranks elementwise and returns the result on every rank: `[...]` -> `[...]`.

    With one rank, the output is x itself.
    """

    all_reduce_type: AllReduceType = AllReduceType.SUM

    enums = _Collective.enums + (("all_reduce_type", AllReduceType),)

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        return (shapes[0],)

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        self._require_alone()
        return (inputs[0].clone(),)


@dataclass(frozen=True)
class AllGather(_Collective):
    """Gathers x of all ranks, in their order, on every rank: `[...]` -> `[rank_size, ...]`."""

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        return ((self.rank_size, *shapes[0]),)

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        self._require_alone()
        return (inputs[0].clone().unsqueeze(0),)


@dataclass(frozen=True)
class LinearParallel(_Collective):
    """Computes the linear of a row-parallel layer: the sum of `x W` over all ranks.

    x `[m, k]`, weight `[n, k]` (`trans_weight`) or `[k, n]` -> `[m, n]`. The result is that of `Linear` followed by
    `AllReduce`, which an engine may overlap.
    """

    trans_weight: bool = True

    input_names = ("x", "weight")
    input_dtypes = ("float", "x")
    backends = Op.backends - {"cpu"}

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        return Linear(transpose_b=self.trans_weight).infer_shapes(*shapes)

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        self._require_alone()
        return Linear(transpose_b=self.trans_weight).reference(*inputs)
