# SPDX-License-Identifier: Apache-2.0
"""Writes profiles in the trace event format of Chrome, which Perfetto reads.

The format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from atb_cli.output import writing
from atb_core.graph.tensor import Tensor
from atb_profile.recorded import NodeTime, Recorded, node_times

_PROCESS = 1
#: Row of the trace with the calls of engines; the engine's threads follow it. Viewers take a thread with the number of
#: its process for the main thread; Perfetto does so with thread 0, too.
_CALLS = _PROCESS


def write_trace(profile: Recorded, path: str | os.PathLike[str]) -> None:
    """Writes a profile as JSON. Times are microseconds since the profile began.

    Characters are written as they are: Perfetto refuses a trace with a surrogate pair among its escapes.
    """
    with writing(path), open(path, "w", encoding="utf-8", errors="replace") as file:
        file.write('{"displayTimeUnit": "ms", "traceEvents": [\n')
        for number, event in enumerate(events(profile)):
            file.write((",\n" if number else "") + json.dumps(event, ensure_ascii=False))
        file.write("\n]}\n")


def events(profile: Recorded) -> Iterator[dict[str, Any]]:
    """Yields the events of a profile: the calls of engines with what is between, each thread's part of every node."""
    threads = max((len(run.threads) for call in profile.calls for run in call.runs), default=0)
    yield _named("process_name", _CALLS, "atb_core")
    yield _named("thread_name", _CALLS, "steps")
    for index in range(threads):
        yield _named("thread_name", _CALLS + 1 + index, profile.clock or f"engine thread {index}")
    moment = profile.begin
    for call in profile.calls:
        if call.begin > moment:
            yield _slice("host", "host", _CALLS, moment, call.begin, profile.begin, {})
        moment = call.end
        shapes = {name: list(shape) for name, shape in call.shapes.items()}
        yield _slice(call.name, "step", _CALLS, call.begin, call.end, profile.begin, {"inputs": shapes, **call.values})
        for node in node_times(call, profile.stored):
            arguments = _arguments(node)
            for index, (begin, end) in enumerate(node.parts):
                if begin:
                    yield _slice(node.op, "node", _CALLS + 1 + index, begin, end, profile.begin, arguments)
    if profile.end > moment:
        yield _slice("host", "host", _CALLS, moment, profile.end, profile.begin, {})


def _named(kind: str, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "pid": _PROCESS, "tid": thread, "name": kind, "args": {"name": name}}


def _slice(name: str, kind: str, thread: int, begin: int, end: int, zero: int, arguments: Any) -> dict[str, Any]:
    return {
        "ph": "X",
        "pid": _PROCESS,
        "tid": thread,
        "name": name,
        "cat": kind,
        "ts": (begin - zero) / 1e3,
        "dur": (end - begin) / 1e3,
        "args": arguments,
    }


def _arguments(node: NodeTime) -> dict[str, Any]:
    """Describes a node; bytes and operations are those of all threads together."""
    if node.node is None:
        return {}
    arguments: dict[str, Any] = {
        "module": node.node.module_path,
        "source": node.node.source,
        "inputs": ", ".join(map(_text, node.node.inputs)),
        "outputs": ", ".join(map(_text, node.node.outputs)),
    }
    if node.cost is not None:
        seconds = (node.end - node.begin) * 1e-9
        arguments |= {"bytes": node.cost.bytes, "flops": node.cost.flops}
        if seconds:
            arguments["GB/s"] = round(node.cost.bytes / seconds * 1e-9, 3)
            arguments["GFLOP/s"] = round(node.cost.flops / seconds * 1e-9, 3)
    return arguments


def _text(tensor: Tensor) -> str:
    return str(tensor)
