# SPDX-License-Identifier: Apache-2.0
"""Profiles: what is recorded, of which engines, and that the model runs as before."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from atb_core import ModelRunner, SamplingParams
from atb_core.errors import AtbError, EngineError
from atb_profile import Limits, Profile, measure_limits
from atb_profile.recorded import node_times

Open = Callable[..., ModelRunner]
PROMPT = [3, 1, 4, 1, 5]
THREE = SamplingParams(max_tokens=3, ignore_eos=True)
ENGINES = pytest.mark.parametrize("backend", ["cpu", "reference", "atb-sim"])


@ENGINES
def test_steps_are_recorded_with_every_node_in_order(open_runner: Open, backend: str) -> None:
    runner = open_runner(backend)
    with runner.profile() as profile:
        runner.generate([PROMPT], THREE)
    assert [call.name for call in profile.calls] == ["prefill", "decode", "decode"]
    assert [call.shapes["input_ids"] for call in profile.calls] == [(5,), (1,), (1,)]
    for call in profile.calls:
        (run,) = call.runs
        nodes = list(node_times(call))
        assert [n.node for n in nodes if n.node] == [run.network.nodes[i] for i in run.steps if i >= 0]
        moments = [profile.begin, call.begin, *(n.begin for n in nodes), nodes[-1].end, call.end, profile.end]
        assert moments == sorted(moments)
        for before, after in itertools.pairwise(nodes):
            assert before.end <= after.begin if run.clock else before.end == after.begin


@ENGINES
def test_recording_changes_no_token_and_ends(open_runner: Open, backend: str) -> None:
    runner = open_runner(backend)
    (alone,) = runner.generate([PROMPT], THREE)
    with runner.profile() as profile:
        (recorded,) = runner.generate([PROMPT], THREE)
    steps = len(profile.calls)
    (after,) = runner.generate([PROMPT], THREE)
    assert alone.outputs[0].token_ids == recorded.outputs[0].token_ids == after.outputs[0].token_ids
    assert len(profile.calls) == steps
    assert all(variant.engine.take_runs() == [] for variant in runner.model.variants.variants.values())


def test_parts_of_threads_lie_within_their_node(open_runner: Open) -> None:
    runner = open_runner(num_threads=2)
    with runner.profile() as profile:
        runner.generate([list(range(40))], THREE)
    parts = 0
    for call in profile.calls:
        for node in node_times(call):
            for begin, end in node.parts:
                assert begin == end == 0 or node.begin <= begin <= end <= node.end
                parts += begin > 0
    assert parts > sum(len(call.runs[0].steps) for call in profile.calls)  # a second thread had its share


@pytest.mark.parametrize("backend", ["cpu", "atb-sim"])
def test_rows_add_up_to_the_time_in_nodes(open_runner: Open, backend: str) -> None:
    runner = open_runner(backend)
    with runner.profile() as profile:
        runner.generate([PROMPT], THREE)
    nodes = [node for call in profile.calls for node in node_times(call)]
    for by in ("op", "module"):
        rows = profile.rows(by)
        assert sum(row.count for row in rows) == len(nodes)
        assert sum(row.seconds for row in rows) == pytest.approx(sum(n.end - n.begin for n in nodes) * 1e-9)
    decode = {row.name: row for row in profile.rows("op", "decode")}
    assert decode["PagedAttention"].count == 2 * runner.num_layers
    assert "model.layers.*.mlp.down" in {row.name for row in profile.rows("module")}


@pytest.mark.parametrize("backend", ["cpu", "atb-sim"])
def test_every_node_of_a_model_has_a_cost(open_runner: Open, backend: str) -> None:
    runner = open_runner(backend)
    with runner.profile() as profile:
        runner.generate([PROMPT], THREE)
    costs = [(node.op, node.cost) for call in profile.calls for node in node_times(call) if node.node]
    assert [op for op, cost in costs if cost is None] == []
    config, (head,) = runner.config, [r for r in profile.rows("module", "prefill") if r.name == "lm_head"]
    assert head.flops == 2 * config.hidden_size * config.vocab_size


def test_bytes_of_quantized_weights_are_those_that_the_engine_holds(open_runner: Open) -> None:
    held = {}
    for quantization in (None, "int8"):
        runner = open_runner(quantization=quantization)
        with runner.profile() as profile:
            runner.generate([PROMPT], THREE)
        (row,) = [row for row in profile.rows("module", "decode") if row.name == "model.layers.*.mlp.down"]
        held[quantization] = row.bytes
    assert held["int8"] < held[None] / 2  # float32 otherwise


def test_steps_beyond_the_limit_are_counted_and_named(open_runner: Open) -> None:
    runner = open_runner()
    with Profile(runner, max_nodes=1) as profile:
        runner.generate([PROMPT], THREE)
    assert (len(profile.calls), profile.dropped) == (0, 3)
    assert "NOT recorded for want of memory: 3 steps" in str(profile)


def test_a_profile_is_recorded_once(open_runner: Open) -> None:
    profile = open_runner().profile()
    with profile:
        pass
    with pytest.raises(EngineError, match="recorded once"), profile:
        pass


def test_two_profiles_of_one_runner_exclude_each_other(open_runner: Open) -> None:
    runner = open_runner()
    with runner.profile() as profile:
        with pytest.raises(EngineError, match="another profile records this model"), runner.profile():
            raise AssertionError("it was entered")
        runner.generate([PROMPT], THREE)
    assert all(call.runs for call in profile.calls)
    with runner.profile():
        pass


def test_a_profile_that_an_error_ends_has_what_ran_before_it(open_runner: Open, tmp_path: Path) -> None:
    runner = open_runner()
    with suppress(KeyboardInterrupt), runner.profile(tmp_path / "trace.json") as profile:
        for _ in runner.generate([PROMPT], THREE, stream=True):
            raise KeyboardInterrupt
    assert [call.name for call in profile.calls] == ["prefill"]
    assert (tmp_path / "trace.json").stat().st_size > 0
    assert runner.generate([PROMPT], THREE)


def test_a_trace_that_cannot_be_written_is_refused_before_anything_runs(open_runner: Open, tmp_path: Path) -> None:
    with (
        pytest.raises(AtbError, match="cannot be written: No such file"),
        open_runner().profile(tmp_path / "missing" / "trace.json"),
    ):
        raise AssertionError("it was entered")


def test_engines_without_times_of_nodes_have_steps_alone_and_say_so(open_runner: Open, tmp_path: Path) -> None:
    runner = open_runner(graph="cpp")
    (alone,) = runner.generate([PROMPT], THREE)
    with runner.profile(tmp_path / "trace.json") as profile:
        (recorded,) = runner.generate([PROMPT], THREE)
    assert recorded.outputs[0].token_ids == alone.outputs[0].token_ids
    assert [call.name for call in profile.calls] == ["prefill", "decode", "decode"]
    assert profile.rows() == []
    text = str(profile)
    assert "decode: 2 steps, 2 tokens" in text
    assert "NO times of nodes: the backend cpu with graph='cpp' has none. Steps are by" in text
    assert "step" in (tmp_path / "trace.json").read_text()
    assert runner.generate([PROMPT], THREE)


def test_times_of_a_device_are_said_to_be_its_own(open_runner: Open, tmp_path: Path) -> None:
    runner = open_runner("atb-sim")
    with runner.profile(tmp_path / "trace.json") as profile:
        runner.generate([PROMPT], THREE)
    clock = "simulated Ascend910B2: not a card's time"
    assert profile.clock == clock
    assert f"times of nodes: events on {clock}" in str(profile)
    assert "where the device has nothing to do" in str(profile)
    assert clock in (tmp_path / "trace.json").read_text()
    for call in profile.calls:
        nodes = [node for node in call.runs[0].network.nodes if not node.op.is_view]
        assert [node.node for node in node_times(call)] == nodes  # each one once


def test_a_device_that_cannot_be_recorded_says_why_and_runs_on(open_runner: Open) -> None:
    runner = open_runner("atb-sim")
    (alone,) = runner.generate([PROMPT], THREE)
    sim = runner.model.backend.extension.sim
    for number in (0, 30):  # an operation of the first engine, and of the second
        sim.inject("CreateOperation", number, 27)
        with pytest.raises(EngineError, match=r"\(27\)"), runner.profile():
            raise AssertionError("it was entered")
        assert not sim.fault_pending()
        (again,) = runner.generate([PROMPT], THREE)
        assert again.outputs[0].token_ids == alone.outputs[0].token_ids
    with runner.profile() as profile:
        runner.generate([PROMPT], THREE)
    assert [bool(call.runs) for call in profile.calls] == [True] * 3


def test_tables_have_the_limits_beside_what_was_measured(open_runner: Open) -> None:
    runner = open_runner()
    with runner.profile() as profile:
        runner.generate([PROMPT], THREE)
    text = profile.text(Limits(2, 2e10, 1e12, "bfloat16"))
    assert "read stream 20.00 GB/s" in text
    assert "oneDNN's packed products (bfloat16, 512 rows) 1000 GFLOP/s" in text
    assert "decode: 2 steps, 2 tokens" in text
    assert "of read" in text
    assert "of read" not in str(profile)


def test_limits_are_measured() -> None:
    limits = measure_limits(1, "float32", shapes=[(64, 64)], repeats=1)
    assert limits.threads == 1
    assert limits.read > 0
    assert limits.products >= 0
