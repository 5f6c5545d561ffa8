# SPDX-License-Identifier: Apache-2.0
"""The fusion of a product and its sum over devices, under the name of ATB-Models.

ATB's `LinearParallel` by LCOC sends rows of a product while it computes the next ones. As in ATB-Models it takes the
place of sums by LCCL alone, the library for devices of one server.
"""

from __future__ import annotations

from typing import Any

from atb_core.graph import Tensor, record
from atb_core.graph.ops import AllReduce, Linear, LinearParallel
from atb_core.graph.ops.comm import CommBackend
from atb_core.graph.passes import Fusion, Match, Pass


def _sum_of_product(x: Tensor, weight: Tensor, *, transpose_b: bool, rank: int, rank_size: int, comm_mode: Any,
                    comm_domain: str) -> Tensor:  # fmt: skip
    product = record(Linear(transpose_b=transpose_b), (x, weight))[0]
    return record(AllReduce(rank, rank_size, CommBackend.LCCL, comm_mode, comm_domain), (product,))[0]


def _linear_parallel(x: Tensor, weight: Tensor, *, transpose_b: bool, rank: int, rank_size: int, comm_mode: Any,
                     comm_domain: str) -> Tensor:  # fmt: skip
    op = LinearParallel(rank, rank_size, CommBackend.LCOC, comm_mode, comm_domain, trans_weight=transpose_b)
    return record(op, (x, weight))[0]


def _has_lcoc(match: Match) -> bool:
    """Returns true for what LCOC takes: rows, and a power of two of ranks."""
    ranks, shape = match.attributes["rank_size"], match.tensors["x"].shape
    return shape is not None and len(shape) == 2 and ranks > 1 and ranks & (ranks - 1) == 0


PASSES = [Pass("MatmulAllReduce", Fusion(_sum_of_product, _linear_parallel, _has_lcoc), "LinearParallel")]
