# SPDX-License-Identifier: Apache-2.0
"""Thousands of requests, good and bad: every answer is that of the request alone, and nothing is left of them."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from scripted_model import write_random
from serving import serving, wait_until

from atb_core import ModelRunner, SamplingParams
from atb_serve.settings import Limits, ServeSettings

CLIENT = Path(__file__).with_name("soak_client.py")
# Every eighth is too long to share a step with the tokens of others.
PROMPTS = [f"{'one two ' * (50 if number % 8 == 7 else number % 7)}prompt {number}" for number in range(40)]
TOKENS = 24  # as in the client


def answers_alone(runner: ModelRunner) -> dict[str, Any]:
    params = SamplingParams(max_tokens=TOKENS, logprobs=0)
    found = {}
    for prompt in PROMPTS:
        completion = runner.generate(prompt, params)[0].outputs[0]
        assert completion.logprobs is not None
        steps = zip(completion.token_ids, completion.logprobs, strict=True)
        found[prompt] = [completion.text, [step[token_id].logprob for token_id, step in steps]]
    return found


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class State:
    """Counts what a server has open."""

    def __init__(self, served: Any) -> None:
        self._served = served

    def counts(self) -> dict[str, int]:
        engine, runner = self._served.app.state.server.models["tiny"].engine, self._served.runner
        return {
            "requests": engine.num_running + engine.num_waiting + len(engine._streams),
            "calls": len(runner.engine_loop.calls),
            "blocks": runner.num_blocks - runner.num_free_blocks,
            "tasks": len(asyncio.all_tasks(engine._wakeups.loop)),
            "connections": len(self._served.server.server_state.connections),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "threads": threading.active_count(),
        }


def soak(tmp_path: Path, count: int) -> list[int]:
    """Returns the resident bytes after each hundred requests."""
    settings = ServeSettings(limits=Limits(max_body_bytes=1 << 19))
    with serving(ModelRunner(write_random(tmp_path / "tiny")), settings) as served:
        expected = tmp_path / "expected.json"
        expected.write_text(json.dumps(answers_alone(served.runner)), encoding="utf-8")
        state = State(served)
        run(served.url, 100, expected)  # starts threads, and what is made once
        wait_until(lambda: state.counts()["connections"] == 0)
        before = state.counts()
        sizes = run(served.url, count, expected)
        assert served.runner.engine_loop.pace._sliced_tokens, "no prompt was computed in slices"
        wait_until(lambda: {**state.counts(), "threads": 0} == {**before, "threads": 0})
        assert state.counts()["threads"] <= before["threads"] + 1  # of the pool that encodes
        return sizes


def run(url: str, count: int, expected: Path) -> list[int]:
    sizes = []
    client = subprocess.Popen(
        [sys.executable, str(CLIENT), url, str(count), str(expected)], stdout=subprocess.PIPE, text=True
    )
    assert client.stdout is not None
    for line in client.stdout:
        result = json.loads(line)
        sizes.append(resident_bytes())
    assert client.wait() == 0
    assert result["num_wrong"] == 0, result["wrong"]
    assert len(result["kinds"]) == 9
    return sizes[:-1]


pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")


def test_nothing_is_left_of_some_hundred_requests(tmp_path: Path) -> None:
    soak(tmp_path, 300)


@pytest.mark.slow
def test_nothing_is_left_of_ten_thousand_requests_and_memory_stays(tmp_path: Path) -> None:
    sizes = soak(tmp_path, 10_000)
    middle, end = (statistics.median(sizes[len(sizes) * part // 10 :][:10]) for part in (5, 9))
    assert end < 1.02 * middle, f"{(end / middle - 1):.1%} more memory after the last half"
