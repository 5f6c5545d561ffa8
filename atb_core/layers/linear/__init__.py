# SPDX-License-Identifier: Apache-2.0
"""Linear layers."""

from atb_core.layers.linear.linear import (
    BaseLinear,
    ColumnParallelLinear,
    LinearMethod,
    MergedColumnParallelLinear,
    ParallelLMHead,
    ReplicatedLinear,
    RowParallelLinear,
)

__all__ = [
    "BaseLinear",
    "ColumnParallelLinear",
    "LinearMethod",
    "MergedColumnParallelLinear",
    "ParallelLMHead",
    "ReplicatedLinear",
    "RowParallelLinear",
]
