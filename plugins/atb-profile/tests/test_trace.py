# SPDX-License-Identifier: Apache-2.0
"""Traces follow the trace event format: what viewers need of every event, and slices that nest."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from atb_core import ModelRunner, SamplingParams
from atb_profile.trace import write_trace


@pytest.fixture(params=["cpu", "atb-sim"])
def events(
    request: pytest.FixtureRequest, open_runner: Callable[..., ModelRunner], tmp_path: Path
) -> list[dict[str, Any]]:
    """The events of a trace of one prefill and two decode steps."""
    runner = open_runner(request.param)
    with runner.profile(tmp_path / "trace.json"):
        runner.generate([[3, 1, 4]], SamplingParams(max_tokens=3, ignore_eos=True))
    return json.loads((tmp_path / "trace.json").read_text())["traceEvents"]


def test_every_event_is_a_name_or_a_complete_slice(events: list[dict[str, Any]]) -> None:
    assert {event["ph"] for event in events} == {"M", "X"}
    for event in events:
        assert {"name", "pid", "tid", "args"} <= set(event)
        if event["ph"] == "X":
            assert event["ts"] >= 0
            assert event["dur"] >= 0


def test_every_field_has_the_type_and_the_unit_of_the_format(events: list[dict[str, Any]]) -> None:
    fields = {"M": {"ph", "pid", "tid", "name", "args"}, "X": {"ph", "pid", "tid", "name", "args", "cat", "ts", "dur"}}
    for event in events:
        assert set(event) == fields[event["ph"]]
        assert all(type(event[name]) is int for name in ("pid", "tid"))
        assert all(isinstance(event[name], str) for name in ("ph", "name"))
        assert isinstance(event["args"], dict)
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name")
            assert list(event["args"]) == ["name"]
    assert len({event["pid"] for event in events}) == 1
    assert all(event["tid"] > 0 for event in events)  # Perfetto takes 0 for the number of the process
    named = {event["tid"] for event in events if event["name"] == "thread_name"}
    assert {event["tid"] for event in events} == named


def test_nodes_lie_within_their_step(events: list[dict[str, Any]]) -> None:
    steps = [(e["ts"], e["ts"] + e["dur"]) for e in events if e.get("cat") == "step"]
    for node in (event for event in events if event.get("cat") == "node"):
        begin, end = node["ts"], node["ts"] + node["dur"]
        assert any(first <= begin + 1e-3 and end <= last + 1e-3 for first, last in steps)


def test_a_trace_is_strict_json_whatever_names_are(open_runner: Callable[..., ModelRunner], tmp_path: Path) -> None:
    runner = open_runner()
    path = tmp_path / "trace.json"
    with runner.profile(path) as profile:
        runner.generate([[3, 1, 4]], SamplingParams(max_tokens=1, ignore_eos=True))
    name = 'a "quoted"\n\x00\u2028 name \\ \U0001f600'
    profile.calls[0] = replace(profile.calls[0], name=name)
    write_trace(profile, path)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    text = path.read_text(encoding="utf-8")
    assert "\\ud" not in text  # Perfetto knows no pairs of surrogates
    read = json.loads(text, parse_constant=refuse)
    assert read["displayTimeUnit"] == "ms"
    assert name in [event["name"] for event in read["traceEvents"]]


def test_slices_of_a_thread_do_not_overlap(events: list[dict[str, Any]]) -> None:
    for thread in {event["tid"] for event in events}:
        slices = sorted((e["ts"], e["dur"]) for e in events if e["ph"] == "X" and e["tid"] == thread)
        for (begin, duration), (following, _) in itertools.pairwise(slices):
            assert begin + duration <= following + 1e-6  # microseconds as floating-point numbers


def test_steps_and_what_is_between_them_are_the_whole_time(
    open_runner: Callable[..., ModelRunner], tmp_path: Path
) -> None:
    runner = open_runner()
    with runner.profile(tmp_path / "trace.json") as profile:
        runner.generate([[3, 1, 4]], SamplingParams(max_tokens=3, ignore_eos=True))
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    row = [event for event in events if event["ph"] == "X" and event["tid"] == 1]
    assert {event["cat"] for event in row} == {"step", "host"}
    assert sum(event["dur"] for event in row) == pytest.approx(profile.seconds * 1e6)
    steps = sum(event["dur"] for event in row if event["cat"] == "step")
    assert steps == pytest.approx(sum(call.end - call.begin for call in profile.calls) / 1e3)


def test_threads_and_steps_have_names(events: list[dict[str, Any]]) -> None:
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    stream = {1: "steps", 2: "simulated Ascend910B2: not a card's time"}
    assert names in ({1: "steps", 2: "engine thread 0", 3: "engine thread 1"}, stream)
    assert [event["name"] for event in events if event.get("cat") == "step"] == ["prefill", "decode", "decode"]


def test_nodes_say_where_they_come_from_and_what_they_did(events: list[dict[str, Any]]) -> None:
    nodes = [e["args"] for e in events if e.get("cat") == "node" and e["name"] == "PagedAttention"]
    assert nodes
    assert nodes[0]["module"].startswith("model.layers.")
    assert ":" in nodes[0]["source"]
    assert nodes[0]["bytes"] > 0
    assert nodes[0]["flops"] > 0
