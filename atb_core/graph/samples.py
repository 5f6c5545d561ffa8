# SPDX-License-Identifier: Apache-2.0
"""Real tensors for the samples of ops: reproducible, small, on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def randn(*shape: int) -> torch.Tensor:
    """Returns normally distributed float32 values that depend on the shape only."""
    import torch

    generator = torch.Generator().manual_seed(1 + sum((i + 1) * size for i, size in enumerate(shape)))
    return torch.randn(*shape, generator=generator)


def integers(*values: int) -> torch.Tensor:
    """Returns the values as an int32 vector."""
    import torch

    return torch.tensor(values, dtype=torch.int32)
