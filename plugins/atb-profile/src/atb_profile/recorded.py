# SPDX-License-Identifier: Apache-2.0
"""Holds what a profile recorded: the calls of engines, the times of their nodes, and sums of these."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from atb_core.graph import Node
from atb_core.graph.specialize import bind_dims
from atb_profile.costs import NOTHING, Cost, network_costs
from atb_profile.recorder import Call

#: What a step that copies a value into an output is called.
COPY = "copy to output"
_LAYER = re.compile(r"\.\d+(?=\.|$)")


class NodeTime(NamedTuple):
    """One node of one run; times in nanoseconds of `time.perf_counter_ns`.

    Attributes:
        node: the node; `None` for a copy into an output.
        begin: when a thread began it.
        end: when a thread began the next one: after all have ended it; of a device, when it ended the node.
        parts: begin and end of each thread's part; zeros where it had none.
        cost: what it had to do, `None` where that is not known.
    """

    node: Node | None
    begin: int
    end: int
    parts: tuple[tuple[int, int], ...]
    cost: Cost | None

    @property
    def op(self) -> str:
        """Returns the name of the op."""
        return COPY if self.node is None else self.node.op.name

    @property
    def module(self) -> str:
        """Returns the path of the module that recorded the node, with `*` for numbers of layers."""
        return _LAYER.sub(".*", self.node.module_path) if self.node else ""


@dataclass
class Row:
    """Sums over nodes of one kind.

    Attributes:
        name: what they have in common.
        count: number of nodes that ran.
        seconds: their time, with the time in which threads wait for one another.
        busy: seconds of work, summed over threads.
        threads: number of threads.
        flops: floating-point operations of those with known costs.
        bytes: bytes read and written by them.
        costed: seconds of them.
    """

    name: str
    count: int = 0
    seconds: float = 0.0
    busy: float = 0.0
    threads: int = 1
    flops: int = 0
    bytes: int = 0
    costed: float = 0.0

    def add(self, node: NodeTime) -> None:
        """Adds one node."""
        seconds = (node.end - node.begin) * 1e-9
        self.count += 1
        self.seconds += seconds
        self.threads = len(node.parts)
        self.busy += sum(end - begin for begin, end in node.parts) * 1e-9
        if node.cost is not None:
            self.flops += node.cost.flops
            self.bytes += node.cost.bytes
            self.costed += seconds

    @property
    def bandwidth(self) -> float:
        """Returns bytes a second."""
        return self.bytes / self.costed if self.costed else 0.0

    @property
    def rate(self) -> float:
        """Returns floating-point operations a second."""
        return self.flops / self.costed if self.costed else 0.0


def node_times(call: Call, stored: Mapping[str, int] = NOTHING) -> Iterator[NodeTime]:
    """Yields the nodes of a call in the order of execution.

    Args:
        call: the call.
        stored: bytes that the engine holds of each weight, `Profile.stored`.
    """
    for run in call.runs:
        if not run.threads:
            continue
        costs = network_costs(run.network, bind_dims(run.network, call.shapes), call.values, stored)
        steps = [tuple((each[2 * i], each[2 * i + 1]) for each in run.threads) for i in range(len(run.steps))]
        # A run that was interrupted has no times at its end.
        steps = [parts for parts in steps if any(begin for begin, _ in parts)]
        begins = [min(begin for begin, _ in parts if begin) for parts in steps]
        ends = [max(end for _, end in parts) for parts in steps]
        if not run.clock:  # threads of an engine wait for each other
            ends = [*begins[1:], *ends[-1:]]
        for index, parts, begin, end in zip(run.steps, steps, begins, ends, strict=False):
            node, cost = (run.network.nodes[index], costs[index]) if index >= 0 else (None, None)
            yield NodeTime(node, begin, end, parts, cost)


class Recorded:
    """Holds what a profile recorded.

    Args:
        backend: name of the backend, and of who wrote the graphs if that is C++.

    Attributes:
        calls: the calls of engines, in order.
        begin: when recording began, in nanoseconds of `time.perf_counter_ns`.
        end: when it ended.
        dropped: number of calls that were not kept.
        stored: bytes that the engine holds of each weight.
    """

    def __init__(self, backend: str) -> None:
        self.calls: list[Call] = []
        self.begin = self.end = 0
        self.dropped = 0
        self.backend = backend
        self.stored: Mapping[str, int] = NOTHING

    @property
    def clock(self) -> str:
        """Returns the device whose events gave the times of nodes, "" if there is none."""
        return next((run.clock for call in self.calls for run in call.runs), "")

    @property
    def seconds(self) -> float:
        """Returns the seconds from entering to leaving."""
        return (self.end - self.begin) * 1e-9

    def phases(self) -> dict[str, list[Call]]:
        """Returns the calls by the name of their variant: prefill, decode, mixed."""
        phases = defaultdict(list)
        for call in self.calls:
            phases[call.name].append(call)
        return dict(phases)

    def rows(self, by: str = "op", phase: str | None = None) -> list[Row]:
        """Returns the sums of nodes, the longest first.

        Args:
            by: `op`; or `module`, in which the layers of a model are one.
            phase: name of the variant whose calls count; `None` for all.
        """
        rows: dict[str, Row] = {}
        for call in self.calls:
            if phase is None or call.name == phase:
                for node in node_times(call, self.stored):
                    name = node.op if by == "op" else node.module or node.op
                    rows.setdefault(name, Row(name)).add(node)
        return sorted(rows.values(), key=lambda row: -row.seconds)
