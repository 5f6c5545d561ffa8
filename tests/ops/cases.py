# SPDX-License-Identifier: Apache-2.0
"""One test case for each sample of each op, and how a backend is compared with the reference on it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from atb_testing.one_op import core_ops, rounding
from atb_testing.op_samples import samples_of

OPS = core_ops()
CASES = [pytest.param(sample, id=f"{name}: {sample.label}") for name, op in OPS.items() for sample in samples_of(op)]
FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def assert_close(expected: Sequence[torch.Tensor], actual: Sequence[torch.Tensor]) -> None:
    """Floats within one unit in the last place of the largest value, everything else equal."""
    for one, other in zip(expected, actual, strict=True):
        if one.is_floating_point():
            bound = rounding(one.dtype)
            scale = float(one.float().abs().max()) or 1.0
            torch.testing.assert_close(other, one, rtol=bound, atol=bound * scale)
        else:
            assert torch.equal(other, one)
