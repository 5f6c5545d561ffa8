# SPDX-License-Identifier: Apache-2.0
"""A thousand faults, one at a time, over a generation: each ends in an error with words, and the next one is right."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from simulator.simulated import SIM, counted, greedy, open_runner, prompts

from atb_core import ModelRunner
from atb_core.errors import AtbError
from atb_testing import tiny_checkpoint

pytest.importorskip("transformers")

TOKENS = 8
FAULTS = 1000
#: Of them in kernels, which fail when they run and not when they are launched.
KERNEL_FAULTS = 200
#: What ATB and ACL document, and a code that nobody knows.
STATUSES = (1, 3, 4, 8, 12, 22, 26, 27, 107000, 107003, 207001, 507000, 507015, 987654)
KERNEL_STATUSES = (507000, 507015)
#: Accounts that tell what is alive.
ALIVE = ("live_bytes", "live_allocations", "live_operations", "live_contexts", "live_streams")


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> ModelRunner:
    path: Path = tiny_checkpoint(
        tmp_path_factory.mktemp("llama"), "llama", torch.float16, num_hidden_layers=2, max_position_embeddings=128
    )
    opened: ModelRunner = open_runner(path, num_blocks=8)
    return opened


@pytest.fixture(autouse=True)
def no_fault_is_left() -> Iterator[None]:
    yield
    SIM.clear_faults()


def generate(runner: ModelRunner) -> list[list[int]]:
    return [output.token_ids for output in runner.generate(prompts((5, 11)), greedy(TOKENS))]


def alive() -> dict[str, int]:
    # Models of other tests wait for the collector: they refer to themselves.
    gc.collect()
    now = SIM.counters()
    return {name: now[name] for name in ALIVE}


def spread(count: int, points: int, statuses: tuple[int, ...]) -> list[tuple[int, int]]:
    """`count` pairs of a point and a status, the points evenly, every status with early and late ones."""
    return [(i * points // count, statuses[i % len(statuses)]) for i in range(count)]


def test_after_each_of_a_thousand_faults_the_next_generation_is_right(runner: ModelRunner) -> None:
    expected = generate(runner)
    begin = SIM.calls()
    with counted() as found:
        assert generate(runner) == expected
    calls = SIM.calls() - begin
    # What other tests have left in cycles must not be freed while this one counts.
    gc.collect()
    before, free = alive(), runner.num_free_blocks
    faults: list[tuple[Callable[..., None], tuple[Any, ...], int]] = [
        (SIM.inject_async, (n, s), s) for n, s in spread(KERNEL_FAULTS, found["launches"], KERNEL_STATUSES)
    ]
    faults += [(SIM.inject, ("", n, s), s) for n, s in spread(FAULTS - KERNEL_FAULTS, calls, STATUSES)]
    assert len(faults) == FAULTS
    assert len({arguments[:-1] for _, arguments, _ in faults}) > 100  # of different calls and kernels
    for inject, arguments, status in faults:
        inject(*arguments)
        with pytest.raises(AtbError) as caught:
            generate(runner)
        message = str(caught.value)
        assert str(status) in message, message  # the code, and beside it what was done
        assert re.search(r"[a-z]{4,} [a-z]{2,}", message), message
        assert not SIM.fault_pending()
        assert runner.num_free_blocks == free
        assert generate(runner) == expected, (arguments, message)
    assert alive() == before
