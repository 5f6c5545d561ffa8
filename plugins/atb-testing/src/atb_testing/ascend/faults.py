# SPDX-License-Identifier: Apache-2.0
"""Asks a device for what it cannot do and must refuse, and looks that it works afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from atb_core.engine import get_backend
from atb_core.errors import AtbError
from atb_core.graph import DataType
from atb_core.graph.ops import Linear, PagedAttention
from atb_testing.ascend.ops import run_op
from atb_testing.ascend.report import Case, Outcome, described
from atb_testing.one_op import engine_for
from atb_testing.op_samples import Sample, integers, randn

_DTYPE = torch.float16
_LINEAR = Sample(Linear(), (randn(3, 64), randn(32, 64)), "3x64x32")
#: Memory that is asked for, as a multiple of the free one: no device lends that.
_TOO_MUCH = 4


def fault_cases(backend: str) -> Iterator[Case]:
    """Yields the faults; each passes if it is refused by an AtbError and the next operation is right."""
    faults: dict[str, Callable[[str], Any]] = {
        "a cache larger than the memory": _memory,
        "an input of another shape": partial(_forward, columns=63),
        "an input of another element type": partial(_forward, dtype=torch.float32),
        "an input that is missing": partial(_forward, leave_out=True),
        "a cache with blocks of 24 tokens": _blocks,
        "a model in float32": _float32,
    }
    for name, fault in faults.items():
        yield Case("faults", name, partial(_refused, fault, backend))


def _refused(fault: Callable[[str], Any], backend: str) -> Outcome:
    try:
        fault(backend)
    except AtbError as error:
        message = described(error)
    else:
        return Outcome("failed", "it was not refused")
    after = run_op(_LINEAR, _DTYPE, backend)
    if after.status != "passed":
        return Outcome(
            "failed", f"it was refused ({message}), but then a matrix product {after.status}: {after.message}"
        )
    return Outcome("passed", message)


def _memory(backend: str) -> None:
    device = get_backend(backend)
    free = device.available_memory()
    assert free is not None
    # Half of it for the element's two bytes.
    device.allocate((_TOO_MUCH * free // 2,), _DTYPE)


def _forward(backend: str, columns: int = 64, dtype: torch.dtype = _DTYPE, leave_out: bool = False) -> None:
    inputs = [value.to(_DTYPE) for value in _LINEAR.inputs]
    engine = engine_for(_LINEAR, inputs, backend)
    given = {"in0": inputs[0][:, :columns].to(dtype).contiguous(), "in1": inputs[1]}
    if leave_out:
        del given["in1"]
    engine.forward(given)


def _blocks(backend: str) -> None:
    """Builds attention over a cache that no kernel takes."""
    caches = randn(4, 24, 2, 64), randn(4, 24, 2, 64)
    inputs = (randn(1, 4, 64), *caches, integers(0, 1).view(1, 2), integers(30))
    sample = Sample(PagedAttention(4, 2, 1.0, 0.125), inputs, "blocks of 24")
    halves = [value.to(_DTYPE) if value.is_floating_point() else value for value in inputs]
    engine = engine_for(sample, halves, backend)
    engine.forward({f"in{i}": value for i, value in enumerate(halves)})


def _float32(backend: str) -> None:
    get_backend(backend).check_model(DataType.FLOAT, 64)
