# SPDX-License-Identifier: Apache-2.0
"""Compares estimates for this machine's processor with steps that run there, in turns with the limits."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from atb_core.engine.cpu import CpuBackend
from atb_profile.estimate.estimate import Assumptions, bound
from atb_profile.estimate.processor import measured_processor

if TYPE_CHECKING:
    from atb_core import ModelRunner
    from atb_profile.estimate.devices import Device
    from atb_profile.estimate.workload import Workload
    from atb_profile.limits import Clock

# Decode steps of a run.
_STEPS = 16


class Step(NamedTuple):
    """A kind of step.

    Attributes:
        phase: `decode` or `prefill`.
        batch: number of sequences; a prefill has one.
        tokens: length of each prompt; decoding goes on from there.
    """

    phase: str
    batch: int
    tokens: int

    def __str__(self) -> str:
        return f"prefill of {self.tokens}" if self.phase == "prefill" else f"decode of {self.batch} after {self.tokens}"


class Comparison(NamedTuple):
    """An estimate beside what was measured.

    Attributes:
        step: the kind of step.
        estimated: seconds by the limits, the median of all rounds.
        measured: seconds of a step, the median of all rounds.
        ratios: measured by estimated of each round, in which both saw the same machine.
    """

    step: Step
    estimated: float
    measured: float
    ratios: Sequence[float]

    @property
    def ratio(self) -> float:
        """Returns the median of the ratios."""
        return statistics.median(self.ratios)


def compare(
    runner: ModelRunner, workload: Workload, steps: Sequence[Step], rounds: int = 3, clock: Clock = time.perf_counter
) -> tuple[Device, list[Comparison]]:
    """Measures limits and steps in turns; a first round of steps, which builds the engines, does not count.

    Args:
        runner: runs the model on the cpu engine, without the cache of prefixes.
        workload: the same model.
        steps: what is compared.
        rounds: number of rounds.
        clock: what is read before and after. Processor time needs a runner with one thread.

    Returns:
        The limits of the last round, and a comparison for each step.
    """
    backend = runner.model.backend
    assert isinstance(backend, CpuBackend)
    found: dict[Step, list[tuple[float, float]]] = {step: [] for step in steps}
    for step in steps:
        _seconds(runner, step, 0, clock)
    for round_ in range(1, rounds + 1):
        device = measured_processor(backend.num_threads, runner.config.torch_dtype, clock)
        for step, pairs in found.items():
            pairs.append((estimated(workload, device, step), _seconds(runner, step, round_, clock)))
    return device, [_comparison(step, pairs) for step, pairs in found.items()]


def _comparison(step: Step, pairs: Sequence[tuple[float, float]]) -> Comparison:
    low, real = (statistics.median(column) for column in zip(*pairs, strict=True))
    return Comparison(step, low, real, [measured / estimate for estimate, measured in pairs])


def estimated(workload: Workload, device: Device, step: Step) -> float:
    """Returns the seconds of a step by the limits of a device."""
    if step.phase == "prefill":
        phase = workload.prefill(step.tokens)
    else:
        phase = workload.decode(step.batch, step.tokens + 1 + _STEPS // 2)
    return bound(phase, device, Assumptions(launch=device.launch.value if device.launch else 0.0)).total


def table(comparisons: Sequence[Comparison]) -> str:
    """Returns the comparisons as a table."""
    lines = [f"{'':24} {'estimated':>12} {'measured':>12}  measured / estimated"]
    for step, low, real, ratios in comparisons:
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        lines.append(f"{step!s:24} {low * 1e3:9.1f} ms {real * 1e3:9.1f} ms  {spread}")
    return "\n".join(lines)


def _seconds(runner: ModelRunner, step: Step, seed: int, clock: Clock) -> float:
    """Returns the seconds of a step, with scheduling and sampling."""
    from atb_core import SamplingParams

    new = 1 if step.phase == "prefill" else 1 + _STEPS
    stride = runner.vocab_size // 7 + 1 + seed  # spread over the vocabulary, and different in each sequence
    prompts = [
        [(place + 1) * (row + 1) * stride % runner.vocab_size for place in range(step.tokens)]
        for row in range(step.batch)
    ]
    waiting = set(range(step.batch))
    start = first = clock()
    for chunk in runner.generate(
        prompts, SamplingParams(temperature=0.0, max_tokens=new, ignore_eos=True), stream=True
    ):
        if chunk.prompt_index in waiting:
            waiting.remove(chunk.prompt_index)
            first = clock()
    return first - start if step.phase == "prefill" else (clock() - first) / _STEPS
