# SPDX-License-Identifier: Apache-2.0
"""Runs the samples of every op that claims ATB, in each element type of the device, against the reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch

from atb_core.engine import get_backend
from atb_core.errors import EngineError
from atb_core.graph.ops import ReshapeAndCache
from atb_testing.ascend.report import Case, Outcome, described
from atb_testing.one_op import MISSING_ON_ATB, core_ops, engine_for, inputs_for_atb, rounding
from atb_testing.op_samples import Sample, samples_of


def op_cases(backend: str, dtypes: Sequence[torch.dtype]) -> Iterator[Case]:
    """Yields a case for each sample and element type."""
    for name, op in core_ops().items():
        if "atb" not in op.backends:
            continue
        for sample in samples_of(op):
            for dtype in dtypes:
                label = f"{name}: {sample.label}, {str(dtype).removeprefix('torch.')}"
                yield Case("ops", label, partial(run_op, sample, dtype, backend))


def run_op(sample: Sample, dtype: torch.dtype, backend: str) -> Outcome:
    """Compares one sample with the reference: floats within one unit in the last place of the largest value."""
    missing = MISSING_ON_ATB.get(sample.op.name, ())
    try:
        engine = engine_for(sample, inputs_for_atb(sample, dtype), backend, leave_out=missing)
    except EngineError as error:
        return Outcome("refused", described(error))
    if isinstance(sample.op, ReshapeAndCache) and _stores_nz(backend):
        return Outcome("skipped", "this chip's caches are in FRACTAL_NZ and lie on the device; models write them")
    reference = engine_for(sample, inputs_for_atb(sample, dtype), "reference", leave_out=missing)
    results = []
    for each in (reference, engine):
        inputs = inputs_for_atb(sample, dtype)
        out = each.forward({f"in{i}": value for i, value in enumerate(inputs)})
        results.append([*out.values(), *(inputs[i] for i in sample.op.writes)])
    return _compared(*results)


def _stores_nz(backend: str) -> bool:
    """Returns true if the chip stores caches in FRACTAL_NZ."""
    device: Any = get_backend(backend)
    return bool(device.device.info["nz"])


def _compared(expected: Sequence[torch.Tensor], actual: Sequence[torch.Tensor]) -> Outcome:
    worst = 0.0
    for one, other in zip(expected, actual, strict=True):
        if one.shape != other.shape or one.dtype != other.dtype:
            found = f"{other.dtype} {list(other.shape)} instead of {one.dtype} {list(one.shape)}"
            return Outcome("failed", f"the result is {found}")
        bound = rounding(one.dtype)
        p, q = one.double(), other.double()
        # Equal infinities have no difference that is a number.
        apart = torch.where((p == q) | (p.isnan() & q.isnan()), 0.0, (p - q).abs()).nan_to_num(nan=torch.inf)
        finite = p[p.isfinite()].abs()
        scale = (float(finite.max()) if finite.numel() else 0.0) or 1.0
        allowed = bound * (p.abs().nan_to_num(posinf=0.0) + scale) if bound else torch.zeros_like(p)
        worst = max(worst, float(apart.max()) / scale if apart.numel() else 0.0)
        if bool((apart > allowed).any()):
            wrong = int((apart > allowed).sum())
            message = f"{wrong} of {apart.numel()} elements differ; the largest difference is {float(apart.max()):.4g}"
            return Outcome("failed", message, {"relative error": worst})
    return Outcome("passed", figures={"relative error": worst})
