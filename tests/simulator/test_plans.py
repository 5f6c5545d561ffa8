# SPDX-License-Identifier: Apache-2.0
"""The cost of a step: operations, launches, copies and memory, counted by the simulator and asserted exactly."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from simulator.simulated import SIM, DeviceDriver, counted, fault, greedy, open_runner, prompts

from atb_ascend.backend import AtbBackend
from atb_core.errors import EngineError
from atb_testing import open_model, tiny_checkpoint

pytest.importorskip("transformers")

LAYERS = 3
#: By family, launches of one prefill and of one decode step. Embedding, cos, sin (and lm_head's rows in prefill) are
#: gathered once; a layer has norms, projections, splits, rope, cache, attention and the MLP; last norm and lm_head.
LAUNCHES = {"llama": (39, 38), "qwen2": (39, 38), "qwen3": (45, 44)}
#: Copies of the model's memory: one for everything that a step brings, one for its logits.
STEP = {"copies_h2d": 1, "copies_d2h": 1, "copies_d2d": 0, "setups": LAYERS + 2, "executes": LAYERS + 2}
#: Nothing is made or allocated.
NOTHING = {"creates": 0, "allocations": 0, "live_bytes": 0, "live_operations": 0}
BATCH = prompts([3, 5, 8])


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = {"num_hidden_layers": LAYERS, "max_position_embeddings": 512}
    return tiny_checkpoint(tmp_path_factory.mktemp("llama"), "llama", torch.float16, **options)


@pytest.fixture
def clean_memory() -> Iterator[None]:
    """Clears what other tests have left, and nothing of this one may stay."""
    gc.collect()
    names = ("live_allocations", "live_operations", "live_contexts", "live_streams")
    before = SIM.counters()
    yield
    gc.collect()
    after = SIM.counters()
    # Working memory is the device's and stays: two allocations, which may have been made here.
    assert {name: after[name] - before[name] for name in names[1:]} == dict.fromkeys(names[1:], 0)
    assert 0 <= after["live_allocations"] - before["live_allocations"] <= 2


def engines(model: Any) -> dict[str, Any]:
    return {next(iter(key)): variant.engine for key, variant in model.variants.variants.items()}


def num_plans(engine: Any) -> int:
    count: int = engine.programs()[0].handle.num_plans
    return count


def own_device(**options: bool) -> AtbBackend:
    """A backend whose device is not the one that others share."""
    backend = AtbBackend(simulator=True)
    backend.device = backend.extension.Device(0, 0, **options)
    return backend


@pytest.mark.parametrize("family", LAUNCHES)
def test_launches_and_copies_of_a_step_are_known_and_later_steps_make_nothing(tmp_path: Path, family: str) -> None:
    tiny_checkpoint(tmp_path, family, torch.float16, num_hidden_layers=LAYERS)
    driver = DeviceDriver(open_model(tmp_path, "atb-sim"), len(BATCH))
    driver.prefill(BATCH)
    driver.decode([1, 2, 3])
    for step, launches in zip(
        (lambda: driver.prefill(BATCH), lambda: driver.decode([4, 5, 6])), LAUNCHES[family], strict=True
    ):
        with counted() as found:
            step()
        assert {name: found[name] for name in (*STEP, *NOTHING)} == {**STEP, **NOTHING}
        assert found["launches"] == launches


def test_what_a_step_copies_is_its_inputs_and_its_logits(llama: Path) -> None:
    driver = DeviceDriver(open_model(llama, "atb-sim"), len(BATCH))
    driver.prefill(BATCH)
    driver.decode([1, 2, 3])
    with counted() as found:
        logits = driver.decode([4, 5, 6])
    # Ids and positions of eight bytes, slots, lengths and tables of four, each from a multiple of 64 bytes on.
    sizes = [3 * 8, 3 * 8, 3 * 4, 3 * 4, driver.tables.numel() * 4]
    assert found["bytes_h2d"] == sum(-(-size // 64) * 64 for size in sizes)
    assert found["bytes_d2h"] == logits.numel() * logits.itemsize


def test_tables_and_masks_are_copied_once(llama: Path) -> None:
    model = open_model(llama, "atb-sim", 512)
    driver = DeviceDriver(model, 1)
    tables = 2 * 512 * model.model_status.head_dim * 2
    mask = 128 * 128 * 2
    for step, constants, count in (
        (lambda: driver.prefill([[1]]), tables + mask, 3),
        (lambda: driver.decode([1]), tables, 2),
    ):
        with counted() as first:
            step()
        with counted() as second:
            step()
        assert first["copies_h2d"] - second["copies_h2d"] == count
        assert first["bytes_h2d"] - second["bytes_h2d"] == constants


def test_a_plan_is_made_for_shapes_and_used_again(llama: Path) -> None:
    model = open_model(llama, "atb-sim")
    driver = DeviceDriver(model, len(BATCH))
    for _ in range(3):
        driver.prefill(BATCH)
        for token in range(4):
            driver.decode([token] * len(BATCH))
    assert {name: num_plans(engine) for name, engine in engines(model).items()} == {"prefill": 1, "decode": 1}
    driver.prefill(prompts([3, 6, 8]))  # one more token
    driver.prefill(prompts([4, 5, 8]))  # as many, cut otherwise
    assert num_plans(engines(model)["prefill"]) == 2


def test_plans_for_ever_other_shapes_are_not_kept_for_ever(llama: Path) -> None:
    model = open_model(llama, "atb-sim")
    driver = DeviceDriver(model, 1)
    first = driver.prefill(prompts([1]))
    for length in range(1, 80):
        driver.prefill(prompts([length]))
    assert num_plans(engines(model)["prefill"]) == 64
    assert torch.equal(driver.prefill(prompts([1])), first)


@pytest.mark.parametrize("layers", [1, 2, 6])
def test_there_is_a_segment_for_each_layer_and_equal_layers_share_an_operation(tmp_path: Path, layers: int) -> None:
    tiny_checkpoint(tmp_path, "llama", torch.float16, num_hidden_layers=layers)
    model = open_model(tmp_path, "atb-sim")
    DeviceDriver(model, 1).run([[1, 2, 3]], [2])
    for engine in engines(model).values():
        info = engine.plan_info()
        assert info["segments"] == layers + 2
        # The first layer norms, the others add and norm: before, the first, all others, after.
        assert info["operations"] == min(layers, 2) + 2


@pytest.mark.usefixtures("clean_memory")
def test_memory_and_operations_return_when_models_are_dropped(llama: Path) -> None:
    for _ in range(3):
        before = SIM.counters()
        runner = open_runner(llama)
        runner.generate(prompts(), greedy(4))
        held = SIM.counters()
        cache = sum(t.numel() * t.itemsize for pair in runner.kv_cache for t in pair)
        weights = runner.model.variants.store.nbytes
        assert held["live_bytes"] - before["live_bytes"] >= cache + weights
        del runner
        gc.collect()
        left = SIM.counters()["live_bytes"] - before["live_bytes"]
    assert left == 0  # the device's working memory has its size since the first turn


@pytest.mark.usefixtures("clean_memory")
def test_a_device_gives_everything_back(llama: Path) -> None:
    before = SIM.counters()
    model = open_model(llama, own_device())
    driver = DeviceDriver(model, 1)
    driver.run([[1, 2, 3]], [2])
    assert SIM.counters()["live_streams"] == before["live_streams"] + 1
    del model, driver
    gc.collect()
    after = SIM.counters()
    assert {name: value for name, value in after.items() if name.startswith("live_")} == {
        name: value for name, value in before.items() if name.startswith("live_")
    }


@pytest.mark.usefixtures("clean_memory")
def test_a_model_may_be_dropped_by_a_thread_that_never_used_the_device(llama: Path) -> None:
    held = [open_model(llama, own_device())]
    expected = DeviceDriver(held[0], 1).prefill(BATCH[:1])
    thread = threading.Thread(target=lambda: (held.clear(), gc.collect()))
    thread.start()
    thread.join()
    assert torch.equal(DeviceDriver(open_model(llama, "atb-sim"), 1).prefill(BATCH[:1]), expected)


def test_working_memory_grows_with_the_longest_step_and_is_used_again(llama: Path) -> None:
    model = open_model(llama, own_device(), 512)
    driver = DeviceDriver(model, 1, 512)

    def used(length: int) -> int:
        driver.prefill(prompts([length]))
        size: int = engines(model)["prefill"].plan_info()["workspace_bytes"]
        return size

    short, long = used(8), used(300)
    assert long > 10 * short
    with counted() as found:
        assert [used(length) for length in (8, 299, 300)] == [long] * 3
    assert found["allocations"] == 0
    assert engines(model)["prefill"].plan_info()["arena_bytes"] < long


@pytest.mark.usefixtures("clean_memory")
def test_programs_of_one_device_share_its_working_memory(llama: Path) -> None:
    backend = own_device()
    models = [open_model(llama, backend) for _ in range(2)]
    drivers = [DeviceDriver(model, 1) for model in models]
    drivers[0].prefill(prompts([90]))
    with counted() as found:
        drivers[1].prefill(prompts([90]))
    assert found["allocations"] == 3  # cosine, sine and the mask


@pytest.mark.usefixtures("clean_memory")
def test_launches_by_a_second_thread_give_the_same_bits(llama: Path) -> None:
    results = []
    for options in ({}, {"execute_async": True}, {"launch_blocking": True}):
        model = open_model(llama, own_device(**options), 512)
        driver = DeviceDriver(model, 4, 512)
        lengths = [3, 200, 17, 1]
        results.append(torch.cat(driver.run(prompts([n + 6 for n in lengths]), lengths)))
        # With two threads an operation may wait to be launched while the next is prepared: none is shared.
        operations = LAYERS + 2 if options.get("execute_async") else 4
        assert engines(model)["decode"].plan_info()["operations"] == operations
        results.append(driver.prefill(prompts([300, 1, 2, 3])))
    assert torch.isfinite(results[0]).all()
    for prefill_and_decode, longer in zip(results[::2], results[1::2], strict=True):
        assert torch.equal(prefill_and_decode, results[0])
        assert torch.equal(longer, results[1])


def test_the_environment_switches_the_second_thread_on(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATB_OPERATION_EXECUTE_ASYNC", "1")
    runner = open_runner(llama)
    runner.generate(prompts(), greedy(2))
    assert engines(runner.model)["decode"].plan_info()["operations"] == LAYERS + 2
    other = AtbBackend(simulator=True, execute_async=False)
    assert other.device is not runner.model.backend.device  # type: ignore[attr-defined]


@pytest.mark.parametrize("execute_async", [False, True])
@pytest.mark.parametrize("call", ["Operation::Setup", "Operation::Execute"])
@pytest.mark.parametrize("segment", range(LAYERS + 2))
def test_a_failure_surfaces_in_the_call_that_it_happens_in(
    llama: Path, execute_async: bool, call: str, segment: int
) -> None:
    model = open_model(llama, AtbBackend(simulator=True, execute_async=execute_async))
    driver = DeviceDriver(model, 1)
    expected = driver.prefill(BATCH[:1])
    where = ["embed_tokens", *(f"layers.{i}" for i in range(LAYERS)), "model.norm"][segment]
    with (
        pytest.raises(EngineError, match=rf"(prepare|launch) the operations of .*{where}.*ERROR_RT_FAIL \(4\)"),
        fault(SIM.inject, call, segment, 4),
    ):
        driver.prefill(BATCH[:1])
    assert torch.equal(driver.prefill(BATCH[:1]), expected)


@pytest.mark.parametrize("execute_async", [False, True])
@pytest.mark.parametrize("kernel", [0, 17, 38])
def test_a_failure_on_the_device_surfaces_in_the_call_that_it_happens_in(
    llama: Path, execute_async: bool, kernel: int
) -> None:
    driver = DeviceDriver(open_model(llama, AtbBackend(simulator=True, execute_async=execute_async)), 1)
    expected = driver.prefill(BATCH[:1])
    with (
        pytest.raises(EngineError, match="failed on the device: ACL reports error 507015"),
        fault(SIM.inject_async, kernel, 507015),
    ):
        driver.prefill(BATCH[:1])
    assert torch.equal(driver.prefill(BATCH[:1]), expected)


@pytest.mark.parametrize("execute_async", [False, True])
def test_a_host_that_waits_after_each_segment_knows_where_the_device_failed(llama: Path, execute_async: bool) -> None:
    backend = own_device(launch_blocking=True, execute_async=execute_async)
    driver = DeviceDriver(open_model(llama, backend), 1)
    driver.prefill(BATCH[:1])
    with (
        pytest.raises(EngineError, match=r"layers\.1.*failed on the device"),
        fault(SIM.inject_async, 17, 507015),
    ):
        driver.prefill(BATCH[:1])


@pytest.mark.parametrize(
    "name", ["ATB_OPERATION_EXECUTE_ASYNC", "ASCEND_LAUNCH_BLOCKING", "ATB_LLM_ENABLE_AUTO_TRANSPOSE"]
)
@pytest.mark.parametrize("value", ["yes", "2", "-1"])
def test_a_switch_that_is_neither_0_nor_1_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(EngineError, match=f"{name}='{value}' is neither 0 nor 1") as caught:
        AtbBackend(simulator=True)
    assert caught.value.hint == f"export {name}=1 or 0, or unset it."
