# SPDX-License-Identifier: Apache-2.0
"""Compares two results of one computation: equal bits on engines that guarantee them, within rounding on others."""

from __future__ import annotations

import torch

from atb_testing.lab import Lab

#: Backends whose results do not depend on the batch, threads, block size or the cut between prefill and decode.
BITWISE = frozenset({"cpu"})
# Two orders of summation in float32.
_FLOAT32_TOLERANCE = 2e-5


def assert_same(ours: torch.Tensor, expected: torch.Tensor, lab: Lab, dtype: str, backend: str) -> None:
    """Fails unless two results of one computation agree: in every bit, or on other backends within rounding."""
    if backend in BITWISE:
        assert torch.equal(ours, expected), f"not the same bits: {described(ours, expected)}"
    else:
        assert_within_rounding(ours, expected, lab, dtype)


def assert_within_rounding(
    ours: torch.Tensor, expected: torch.Tensor, lab: Lab, dtype: str, multiple: float = 2.0
) -> None:
    """Fails unless two results are as close as rounding in `dtype` explains.

    The limits are a multiple of the mean error of torch's own logits in `dtype` and, as in `ErrorReport.within`, 1.25
    times that multiple of the largest one: a single logit depends on luck.
    """
    error = (ours.float() - expected.float()).abs() / expected.float().abs().mean()
    torch_error = lab.torch_error(dtype)
    largest = 1.25 * multiple * torch_error.torch_max + _FLOAT32_TOLERANCE
    mean = multiple * torch_error.torch_mean + _FLOAT32_TOLERANCE
    assert error.max() <= largest and error.mean() <= mean, (
        f"{error.max():.2g} of the mean logit apart, {error.mean():.2g} in the mean, the limits are {largest:.2g} and "
        f"{mean:.2g}: {described(ours, expected)}"
    )


def described(ours: torch.Tensor, expected: torch.Tensor) -> str:
    """Describes the difference of two results."""
    rows = (ours != expected).any(-1).nonzero().flatten().tolist()
    worst = (ours.float() - expected.float()).abs().max().item()
    return f"{len(rows)} of {len(ours)} tokens differ, the first is number {rows[0] if rows else None}; by {worst:.3g}"
