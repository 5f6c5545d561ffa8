# SPDX-License-Identifier: Apache-2.0
"""Whatever comes and goes, no block is lost or has two owners, and tokens are those of a fresh run."""

from __future__ import annotations

import random
import types
from collections.abc import Iterator
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from runner.load import VOCAB, World, random_action

from atb_core.runner.sampling_params import SamplingParams

SECONDS = 2 * 60 * 60


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[World]]:
    """Shows the loop the time of the newest world in place of the machine's; callers read soon enough or not."""
    worlds: list[World] = []
    now = types.SimpleNamespace(perf_counter=lambda: worlds[-1].now, monotonic=lambda: worlds[-1].now)
    monkeypatch.setattr("atb_core.runner.engine_loop.time", now)
    monkeypatch.setattr("atb_core.runner.request.MAX_UNREAD_CHUNKS", 5)
    yield worlds
    worlds.clear()


class Load(RuleBasedStateMachine):
    """Clients and operators in any order."""

    worlds: ClassVar[list[World]]

    @initialize(num_blocks=st.integers(14, 60), block_size=st.sampled_from([1, 4, 16]), mixes=st.booleans())
    def start(self, num_blocks: int, block_size: int, mixes: bool) -> None:
        # The longest context fits: a request that never could is refused before it gets here.
        self.world = World(max(num_blocks, -(-56 // block_size)), block_size, mixes)
        self.worlds.append(self.world)

    @rule(
        shared=st.integers(0, 24),
        rest=st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=8),
        max_tokens=st.integers(1, 20),
        n=st.integers(1, 3),
        temperature=st.sampled_from([0.0, 0.8]),
        adapter=st.sampled_from([None, "a", "b", "c"]),
        streams=st.booleans(),
        patience=st.sampled_from([0.3, 1000.0]),
    )
    def submit(
        self, shared: int, rest: list[int], max_tokens: int, n: int, temperature: float, adapter: str | None,
        streams: bool, patience: float,
    ) -> None:  # fmt: skip
        prompt = [place % VOCAB for place in range(shared)] + rest
        params = SamplingParams(n=n, max_tokens=max_tokens, temperature=0.8 if n > 1 else temperature, seed=1)
        self.world.submit(prompt, params, adapter, streams, patience)

    @rule(count=st.integers(1, 12))
    def steps(self, count: int) -> None:
        for _ in range(count):
            self.world.step()

    @rule(number=st.integers(0, 9))
    def read(self, number: int) -> None:
        self.world.read(number)

    @rule(number=st.integers(0, 9))
    def leave(self, number: int) -> None:
        self.world.leave(number)

    @rule(name=st.sampled_from("abc"), content=st.integers(1, 3))
    def load(self, name: str, content: int) -> None:
        self.world.load(name, content)

    @rule(name=st.sampled_from("abc"))
    def unload(self, name: str) -> None:
        self.world.unload(name)

    @rule()
    def fail(self) -> None:
        self.world.model.fails = True

    @invariant()
    def is_consistent(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        self.world.model.fails = False
        self.world.finish()


def test_any_order_of_events_keeps_blocks_and_tokens(clock: list[World]) -> None:
    Load.worlds = clock
    run_state_machine_as_test(
        Load,
        settings=settings(
            max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


@pytest.mark.parametrize(
    "seconds", [120, pytest.param(SECONDS, marks=[pytest.mark.slow, pytest.mark.timeout(7200)])], ids=["short", "long"]
)
@pytest.mark.parametrize("mixes", [True, False], ids=["mixed steps", "none"])
def test_hours_of_random_load_lose_nothing(seconds: int, mixes: bool, clock: list[World]) -> None:
    rng, world = random.Random(1), World(mixes=mixes)
    clock.append(world)
    while world.now < seconds:
        random_action(world, rng)
    world.model.fails = False
    world.finish()
    print(f"{world.now:.0f} s: {dict(world.counts)}")
    for event in ("whole", "left", "late", "preemptions", *(["cached tokens", "num_accepted_tokens"] if mixes else [])):
        assert world.counts[event] > 0, event
