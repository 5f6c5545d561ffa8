# SPDX-License-Identifier: Apache-2.0
"""Linear layers."""

from atb_core.layers.linear.linear import (
    BaseLinear,
    ColumnParallelLinear,
    MergedColumnParallelLinear,
    ReplicatedLinear,
    RowParallelLinear,
)

__all__ = ["BaseLinear", "ColumnParallelLinear", "MergedColumnParallelLinear", "ReplicatedLinear", "RowParallelLinear"]
