# SPDX-License-Identifier: Apache-2.0
"""One test case for each sample of each op, and how a backend is compared with the reference on it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from ops.samples import Sample, samples_of

import atb_core.graph.ops as ops_module
from atb_core.engine.base import Engine
from atb_core.graph import Network, Tensor, record, registered_ops
from atb_core.graph.torch_dtypes import dtype_from_torch

OPS = {name: op for name, op in registered_ops().items() if op.__module__.startswith(ops_module.__name__)}
CASES = [pytest.param(sample, id=f"{name}: {sample.label}") for name, op in OPS.items() for sample in samples_of(op)]
FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def cast(sample: Sample, dtype: torch.dtype) -> list[torch.Tensor]:
    return [value.to(dtype) if value.is_floating_point() else value.clone() for value in sample.inputs]


def engine_for(
    sample: Sample, inputs: list[torch.Tensor], backend: str, shapes: bool = True, leave_out: Sequence[int] = ()
) -> Engine:
    """The sample's op as a network; outputs left out are made and read by nobody."""
    with Network("one op") as net:
        declared = [
            Tensor(f"in{i}", tuple(v.shape) if shapes else None, dtype_from_torch(v.dtype))
            for i, v in enumerate(inputs)
        ]
        for i, tensor in enumerate(record(sample.op, declared)):
            if i not in leave_out:
                net.mark_output(tensor, f"out{i}")
    return net.build_engine(["All"], backend=backend)


def rounding(dtype: torch.dtype) -> float:
    """One unit in the last place, relative; float32 results differ by the order of sums as well."""
    return {torch.float32: 2e-5, torch.bfloat16: 2**-7, torch.float16: 2**-10}.get(dtype, 0.0)


def assert_close(expected: Sequence[torch.Tensor], actual: Sequence[torch.Tensor]) -> None:
    """Floats within one unit in the last place of the largest value, everything else equal."""
    for one, other in zip(expected, actual, strict=True):
        if one.is_floating_point():
            bound = rounding(one.dtype)
            scale = float(one.float().abs().max()) or 1.0
            torch.testing.assert_close(other, one, rtol=bound, atol=bound * scale)
        else:
            assert torch.equal(other, one)
