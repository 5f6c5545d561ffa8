# SPDX-License-Identifier: Apache-2.0
"""Threads that use one simulated device at once: each gets what it would get alone."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from simulator.simulated import SIM, DeviceDriver, greedy, open_runner, prompts

from atb_ascend.backend import AtbBackend
from atb_core.errors import EngineError
from atb_testing import open_model, tiny_checkpoint

pytest.importorskip("transformers")

FAMILIES = ("llama", "qwen2", "qwen3")
ROUNDS = 4


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [tiny_checkpoint(tmp_path_factory.mktemp(name), name, torch.float16) for name in FAMILIES]


def at_once(tasks: Sequence[Callable[[], Any]]) -> list[Any]:
    """Returns the results of tasks that begin together, each in a thread of its own."""
    barrier = threading.Barrier(len(tasks))

    def run(task: Callable[[], Any]) -> Any:
        barrier.wait()
        return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return [future.result(timeout=120) for future in [pool.submit(run, task) for task in tasks]]


def logits(model: Any, rounds: int = 1) -> list[torch.Tensor]:
    """Returns logits of prompts of different lengths and of steps after them; other threads run steps between."""
    lengths = [3, 40, 17]
    found = []
    for turn in range(rounds):
        driver = DeviceDriver(model, len(lengths))
        sequences = prompts([n + turn + 5 for n in lengths])
        found.append(torch.cat(driver.run(sequences, [n + turn for n in lengths])))
    return found


@pytest.mark.parametrize("execute_async", [False, True])
def test_models_that_run_at_once_on_one_device_give_the_bits_of_each_alone(
    checkpoints: list[Path], execute_async: bool
) -> None:
    backend = AtbBackend(simulator=True, execute_async=execute_async)
    models = [open_model(path, backend) for path in checkpoints]
    alone = [logits(model, ROUNDS) for model in models]
    together = at_once([lambda model=model: logits(model, ROUNDS) for model in models])  # type: ignore[misc]
    for mine, expected in zip(together, alone, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, expected, strict=True))


def test_models_on_devices_of_their_own_give_the_same_bits(checkpoints: list[Path]) -> None:
    alone = [logits(open_model(path, "atb-sim"), ROUNDS) for path in checkpoints]

    def run(path: Path) -> list[torch.Tensor]:
        backend = AtbBackend(simulator=True)
        backend.device = backend.extension.Device(0)
        return logits(open_model(path, backend), ROUNDS)

    together = at_once([lambda path=path: run(path) for path in checkpoints])  # type: ignore[misc]
    for mine, expected in zip(together, alone, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, expected, strict=True))


def test_models_may_be_opened_and_dropped_while_another_generates(checkpoints: list[Path]) -> None:
    runner = open_runner(checkpoints[0])
    expected = [output.token_ids for output in runner.generate(prompts(), greedy(40))]

    def generate() -> list[list[list[int]]]:
        turns = [runner.generate(prompts(), greedy(40)) for _ in range(ROUNDS)]
        return [[output.token_ids for output in outputs] for outputs in turns]

    def come_and_go() -> bool:
        found = [logits(open_model(checkpoints[1], "atb-sim"))[0] for _ in range(ROUNDS)]
        gc.collect()
        return all(torch.equal(value, found[0]) for value in found)

    generated, same = at_once([generate, come_and_go])
    assert generated == [expected] * ROUNDS
    assert same


def test_one_runner_serves_several_threads(checkpoints: list[Path]) -> None:
    runner = open_runner(checkpoints[2], max_num_seqs=4)
    asked = [prompts([n, n + 7]) for n in (2, 19, 33)]
    expected = [[output.token_ids for output in runner.generate(given, greedy(20))] for given in asked]
    answers = at_once([lambda given=given: runner.generate(given, greedy(20)) for given in asked])  # type: ignore[misc]
    assert [[output.token_ids for output in outputs] for outputs in answers] == expected
    assert runner.num_free_blocks == runner.num_blocks


def test_a_failure_in_one_thread_is_not_anothers(checkpoints: list[Path]) -> None:
    models = [open_model(path, "atb-sim") for path in checkpoints[:2]]
    alone = [logits(model)[0] for model in models]
    SIM.inject("Operation::Execute", 7, 4)
    failures = 0

    def run(number: int) -> int:
        failed = 0
        for _ in range(ROUNDS):
            try:
                found = logits(models[number])[0]
            except EngineError as error:
                failed += "ERROR_RT_FAIL (4)" in str(error)
            else:
                assert torch.equal(found, alone[number])
        return failed

    try:
        failures = sum(at_once([lambda: run(0), lambda: run(1)]))
    finally:
        SIM.clear_faults()
    assert failures == 1
