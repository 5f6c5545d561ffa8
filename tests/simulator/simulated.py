# SPDX-License-Identifier: Apache-2.0
"""Shares helpers among the tests of models on the simulated device."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from atb_ascend.backend import load_simulator
from atb_core import ModelRunner, SamplingParams
from atb_core.graph.arrays import dtype_to_torch
from atb_core.runner.outputs import RequestOutput
from atb_testing import PagedDriver

pytest.importorskip("atb_sim", reason="needs the distribution atb-sim: pip install ./plugins/atb-sim")

SIM = load_simulator().sim
BACKENDS = ("cpu", "atb-sim")

#: Lengths of prompts that run together; the fifth has to wait where four are the most.
LENGTHS = (5, 1, 40, 17, 64)


def prompts(lengths: Sequence[int] = LENGTHS, vocab: int = 200) -> list[list[int]]:
    """Token ids that look random and are always the same."""
    return [[(7919 * i + 104729 * j + i * i * j) % vocab for i in range(n)] for j, n in enumerate(lengths, 1)]


def open_runner(path: Path | str, backend: Any = "atb-sim", **options: Any) -> ModelRunner:
    """A runner of a tiny model without a tokenizer."""
    defaults = {"load_tokenizer": False, "max_model_len": 128, "block_size": 16, "num_threads": 2}
    return ModelRunner(path, backend=backend, **{**defaults, **options})


def greedy(count: int) -> SamplingParams:
    return SamplingParams(temperature=0.0, max_tokens=count, ignore_eos=True, logprobs=5)


def assert_agree(ours: Sequence[RequestOutput], theirs: Sequence[RequestOutput]) -> None:
    """Greedy generations of two engines of one precision: at the first differing token each is in the other's top 5."""
    for index, (left, right) in enumerate(zip(ours, theirs, strict=True)):
        ours_top, theirs_top = left.outputs[0].logprobs, right.outputs[0].logprobs
        assert ours_top is not None
        assert theirs_top is not None
        assert len(left.token_ids) == len(right.token_ids)
        for step, (a, b) in enumerate(zip(left.token_ids, right.token_ids, strict=True)):
            if a != b:
                tops = ours_top[step], theirs_top[step]
                assert a in tops[1] and b in tops[0], f"prompt {index}, step {step}: {tops}"
                break


class DeviceDriver(PagedDriver):
    """A driver whose cache lies where the model's backend wants it."""

    def __init__(self, model: Any, sequences: int, max_len: int = 128, block_size: int = 16) -> None:
        super().__init__(model, sequences, max_len, block_size)
        shape, dtype = tuple(self.kv_cache[0][0].shape), dtype_to_torch(model.dtype)
        self.kv_cache = [
            (
                model.backend.allocate(shape, dtype).fill_(torch.nan),
                model.backend.allocate(shape, dtype).fill_(torch.nan),
            )
            for _ in self.kv_cache
        ]


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Gives, after the block, what the simulator counted within it."""
    before: dict[str, int] = SIM.counters()
    found: dict[str, int] = {}
    yield found
    found.update({name: value - before[name] for name, value in SIM.counters().items()})


@contextmanager
def fault(inject: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """A fault that is planned for the block, which has to run into it."""
    inject(*arguments)
    try:
        yield
        assert not SIM.fault_pending(), "the fault was not reached"
    finally:
        SIM.clear_faults()


def run_python(script: str, **environment: str) -> str:
    """Runs a script in a process of its own, for which the simulated device is new; what it printed."""
    result = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
