# SPDX-License-Identifier: Apache-2.0
"""Runs what a model records with `nn.distributed` in all processes of a group; here they are threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Pipe
from typing import Any

import numpy as np
import pytest

from atb_core.graph import DataType, Dim, Network, Tensor
from atb_core.nn.distributed import distributed as dist
from atb_parallel.channel import Channel
from atb_parallel.follower import Peer
from atb_parallel.leader import Leader
from atb_parallel.processes import Follower

PARTS = [np.arange(6, dtype=np.float32).reshape(2, 3) + 10 * rank for rank in range(3)]


class Thread(Follower):
    """Another rank that is a thread."""

    def part(self, failure: str | None) -> None:
        self.channel.close()

    def end(self) -> None:
        pass

    def death(self) -> str:
        return f"rank {self.rank} ended"


def recorded(group: Any, function: Callable[[Tensor], Tensor]) -> Network:
    with Network() as network, dist.recording_in(group):
        network.mark_output(function(Tensor("x", (Dim("rows"), 3), DataType.FLOAT)), "out")
    return network


def results(function: Callable[[Tensor], Tensor], backend: str) -> list[np.ndarray[Any, Any]]:
    """Returns what `function` gives on each of three ranks, of which the first has this backend.

    The others have the reference: threads of a process run on the CPU engine one after another.
    """
    pipes = [Pipe() for _ in PARTS[1:]]
    leader = Leader([Thread(rank, Channel(pipe[0])) for rank, pipe in enumerate(pipes, 1)], len(PARTS), None)
    peers = [Peer(rank, len(PARTS), None, Channel(pipe[1])) for rank, pipe in enumerate(pipes, 1)]

    def run(group: Any) -> np.ndarray[Any, Any]:
        engine = recorded(group, function).build_engine(backend="reference" if group.rank else backend)
        return np.array(engine.forward({"x": PARTS[group.rank]})["out"])

    with ThreadPoolExecutor(len(PARTS)) as pool:
        found = list(pool.map(run, [leader, *peers]))
    leader.close()
    return found


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_all_gather_gives_every_rank_what_each_has(backend: str) -> None:
    for found in results(dist.all_gather, backend):
        np.testing.assert_array_equal(found, np.stack(PARTS))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_all_reduce_gives_every_rank_the_sum(backend: str) -> None:
    for found in results(lambda x: dist.all_reduce(x) * 2, backend):
        np.testing.assert_array_equal(found, 2 * sum(PARTS))


@pytest.mark.parametrize("domain", [None, "7"])
def test_a_sum_is_not_summed_again(domain: str | None) -> None:
    """Models of ATB-Models sum what their row-parallel layers give, and here these layers have summed it."""
    group = Peer(1, 2, domain, Channel(Pipe()[0]))
    network = recorded(group, lambda x: dist.all_reduce(dist.all_reduce(x)) * 2)
    assert [node.op.name.rpartition(".")[2] for node in network.nodes] == ["AllReduce", "Elewise"]


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("to_all", [True, False])
def test_columns_are_joined_in_the_order_of_the_ranks(to_all: bool, backend: str) -> None:
    first, *others = results(lambda x: dist.gather_columns(x, 9, to_all), backend)
    np.testing.assert_array_equal(first, np.concatenate(PARTS, axis=1))
    for found in others:
        np.testing.assert_array_equal(found, first if to_all else np.zeros_like(first))


def test_columns_that_are_whole_are_not_joined() -> None:
    for found, part in zip(results(lambda x: dist.gather_columns(x, 3) * 2, "cpu"), PARTS, strict=True):
        np.testing.assert_array_equal(found, 2 * part)


def test_devices_join_columns_by_the_operation_of_atb() -> None:
    group = Peer(1, 2, "7", Channel(Pipe()[0]))
    network = recorded(group, lambda x: dist.gather_columns(x, 6))
    assert [node.op.name for node in network.nodes] == ["AllGather", "Transpose", "Reshape"]
    assert network.outputs[0].shape == (Dim("rows"), 6)


def test_devices_gather_by_the_operation_of_atb() -> None:
    group = Peer(1, 2, "7", Channel(Pipe()[0]))
    (node,) = recorded(group, dist.all_gather).nodes
    given = (node.op.name, node.op.rank, node.op.rank_size, node.op.comm_domain)  # type: ignore[attr-defined]
    assert given == ("AllGather", 1, 2, "7")
