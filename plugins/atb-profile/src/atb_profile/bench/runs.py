# SPDX-License-Identifier: Apache-2.0
"""Runs tasks in rounds, each beside the limits that were measured in it."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from atb_profile.bench.machine import load
from atb_profile.profile import Profile

if TYPE_CHECKING:
    from atb_core import ModelRunner
    from atb_profile.limits import Limits

#: Number of the format of the records.
SCHEMA = 1
#: The name of our engine among the subjects.
OURS = "ours"
Prompts: TypeAlias = list[list[int]]
# The variants of a model that belong to a phase.
_PHASES = {"prefill": ("prefill", "mixed"), "decode": ("decode",)}


class Times(NamedTuple):
    """Seconds of one run, with the record of its nodes if there is one."""

    first: float
    total: float
    profile: Profile | None = None


class Subject(Protocol):
    """Generates greedily and ignores the end-of-sequence token."""

    def times(self, prompts: Prompts, max_tokens: int) -> Times:
        """Returns the seconds until all prompts have their first token, and until all tokens are there."""
        ...


class Ours:
    """`ModelRunner.generate`, including scheduling, sampling and bookkeeping.

    The CPU engine's nodes are recorded meanwhile. A device would run them one by one, so there they are not.
    """

    def __init__(self, runner: ModelRunner) -> None:
        self.runner = runner

    def times(self, prompts: Prompts, max_tokens: int) -> Times:
        """Measures one run."""
        if self.runner.backend != "cpu":
            return self._generate(prompts, max_tokens)
        with Profile(self.runner) as profile:
            measured = self._generate(prompts, max_tokens)
        return measured._replace(profile=profile)

    def _generate(self, prompts: Prompts, max_tokens: int) -> Times:
        from atb_core import SamplingParams

        sampling = SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True)
        waiting = set(range(len(prompts)))
        start = first = time.perf_counter()
        for chunk in self.runner.generate(prompts, sampling, stream=True):
            if chunk.prompt_index in waiting:
                waiting.remove(chunk.prompt_index)
                first = time.perf_counter()
        return Times(first - start, time.perf_counter() - start)


@dataclass(frozen=True)
class Task:
    """One run: `batch` prompts of `context` tokens, each continued by `new` tokens."""

    batch: int
    context: int
    new: int
    threads: int

    @property
    def name(self) -> str:
        """Returns the name in messages."""
        return f"{self.batch} x ({self.context}+{self.new}), {self.threads} threads"

    def prompts(self, vocab_size: int, seed: int) -> Prompts:
        """Returns random prompts; no two rounds have the same."""
        found: Prompts = np.random.default_rng(seed).integers(vocab_size, size=(self.batch, self.context)).tolist()
        return found


def sample(task: Task, times: Times, limits: Limits | None) -> dict[str, Any]:
    """Returns the figures of one run of ours: speeds, and bytes and operations beside the limits of the round."""
    figures: dict[str, Any] = {
        "tokens_per_second": task.batch * (task.context + task.new) / times.total,
        "prefill_tokens_per_second": task.batch * task.context / times.first,
        "time_to_first_token": times.first,
    }
    if task.new > 1:
        figures["decode_tokens_per_second"] = task.batch * (task.new - 1) / (times.total - times.first)
    if times.profile is not None and limits is not None:
        for phase, variants in _PHASES.items():
            if found := _beside_limits(times.profile, variants, limits):
                figures[phase] = found
    return figures


def _beside_limits(profile: Profile, variants: Sequence[str], limits: Limits) -> dict[str, Any]:
    """Returns bytes and operations a second of some variants of a model; nothing if their nodes have no times."""
    rows = [row for variant in variants for row in profile.rows("op", variant)]
    seconds = sum(call.end - call.begin for call in profile.calls if call.name in variants) * 1e-9
    if not rows or not seconds:
        return {}
    bandwidth, rate = (sum(getattr(row, name) for row in rows) / seconds for name in ("bytes", "flops"))
    shares: dict[str, float] = defaultdict(float)
    for row in rows:
        shares[row.name] += row.seconds / seconds
    return {
        "bytes_per_second": bandwidth,
        "flops_per_second": rate,
        "of_read": bandwidth / limits.read,
        "of_products": rate / limits.products if limits.products else None,
        "shares": {name: round(share, 4) for name, share in shares.items()},
        "host_share": 1 - seconds / ((profile.calls[-1].end - profile.calls[0].begin) * 1e-9),
    }


def measure(
    tasks: Sequence[Task], subjects: Callable[[Task], Mapping[str, Subject]], limits: Callable[[], Sequence[Limits]],
    vocab_size: int, rounds: int, say: Callable[[str], None],
) -> dict[str, Any]:  # fmt: skip
    """Runs all rounds; the first one, which builds engines, is not counted.

    Args:
        tasks: what runs in each round, in random order.
        subjects: what runs a task, by name, in random order; `OURS` is among them.
        limits: measures the limits of this moment for each number of threads; for none, nothing is said beside them.
        vocab_size: number of tokens of which prompts are made.
        rounds: number of rounds that count.
        say: is told of each task that has run.

    Returns:
        `limits` of each round, `samples` of our engine, and in `pairs` the times of others divided by ours.
    """
    order = random.Random(0)
    record: dict[str, Any] = {"limits": [], "samples": [], "pairs": []}
    for round_ in range(rounds + 1):
        now = {each.threads: each for each in limits()} if round_ else {}
        record["limits"] += [{"round": round_, "load": load(), **each._asdict()} for each in now.values()]
        for task in order.sample(list(tasks), len(tasks)):
            chosen = subjects(task)
            prompts = task.prompts(vocab_size, round_)
            found = {n: chosen[n].times(prompts, task.new) for n in order.sample(list(chosen), len(chosen))}
            told = ", ".join(f"{name} {times.total:.2f} s" for name, times in found.items())
            say(f"round {round_} of {rounds}, {task.name}: {told}" + ("" if round_ else " (not counted)"))
            if not round_:
                continue
            mine = found.pop(OURS)
            figures = sample(task, mine, now.get(task.threads))
            record["samples"].append({"round": round_, "load": load(), **asdict(task), **figures})
            record["pairs"] += [_pair(round_, task, name, mine, times) for name, times in found.items()]
    return record


def _pair(round_: int, task: Task, peer: str, ours: Times, theirs: Times) -> dict[str, Any]:
    pair = {"round": round_, "peer": peer, **asdict(task)}
    pair["first_ratio"] = theirs.first / ours.first
    pair["total_ratio"] = theirs.total / ours.total
    if task.new > 1:
        pair["decode_ratio"] = (theirs.total - theirs.first) / (ours.total - ours.first)
    return pair
