# SPDX-License-Identifier: Apache-2.0
"""Ranks of a tensor-parallel group, as threads of one process with a device each."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from atb_ascend.backend import AtbBackend, load_simulator
from atb_core.errors import EngineError, GraphError
from atb_core.graph import DataType, Dim, Network, Op, Tensor, record
from atb_core.graph.ops import AllGather, AllReduce, LinearParallel

pytest.importorskip("atb_sim", reason="needs the distribution atb-sim: pip install ./plugins/atb-sim")

RANKS = 2


@pytest.fixture(autouse=True)
def enough_devices() -> Iterator[None]:
    """ATB takes no more ranks than the process sees devices."""
    sim = load_simulator().sim
    sim.set_devices(RANKS)
    yield
    sim.set_devices(1)


def own_device() -> AtbBackend:
    """A backend whose device is nobody else's: a rank waits for the others while it holds its device."""
    backend = AtbBackend(simulator=True)
    backend.device = backend.extension.Device(0)
    return backend


def run_ranks(make: type[Op], inputs: list[list[torch.Tensor]], **attributes: object) -> list[torch.Tensor]:
    """The output of every rank; `inputs[r]` are rank r's."""

    def run(rank: int) -> torch.Tensor:
        given = inputs[rank]
        op = make(rank=rank, rank_size=RANKS, comm_mode="COMM_MULTI_THREAD", **attributes)  # type: ignore[call-arg]
        with Network(f"rank{rank}") as net:
            x = Tensor("in0", (Dim("rows"), given[0].shape[1]), DataType.FLOAT16)
            rest = [Tensor(f"in{i}", tuple(v.shape), DataType.FLOAT16) for i, v in enumerate(given) if i]
            net.mark_output(record(op, [x, *rest])[0], "out")
        engine = own_device().build(net)
        return engine.forward({f"in{i}": value for i, value in enumerate(given)})["out"]

    with ThreadPoolExecutor(RANKS) as pool:
        return list(pool.map(run, range(RANKS)))


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).half()


@pytest.mark.parametrize("backend", ["hccl", "lccl"])
def test_all_reduce_gives_every_rank_the_sum(backend: str) -> None:
    parts = [randn(5, 32), randn(5, 32) * 3]
    results = run_ranks(AllReduce, [[part] for part in parts], backend=backend, comm_domain="7")
    for result in results:
        torch.testing.assert_close(result, (parts[0].float() + parts[1].float()).half())


def test_all_gather_gives_every_rank_all_parts_in_order() -> None:
    parts = [randn(3, 16), randn(3, 16) + 1]
    for result in run_ranks(AllGather, [[part] for part in parts]):
        assert torch.equal(result, torch.stack(parts))


def test_linear_parallel_is_the_linear_of_the_whole_matrix() -> None:
    x, weight = randn(4, 64), randn(48, 64) / 8
    halves = [[x[:, i : i + 32].contiguous(), weight[:, i : i + 32].contiguous()] for i in (0, 32)]
    expected = x.float() @ weight.float().T
    for result in run_ranks(LinearParallel, halves):
        torch.testing.assert_close(result.float(), expected, rtol=2e-3, atol=2e-2)


def test_more_ranks_than_devices_are_refused_with_what_helps() -> None:
    load_simulator().sim.set_devices(1)
    with pytest.raises(EngineError, match=r"rank_size is 2 and the process sees 1 device: .*ASCEND_RT_VISIBLE_DEVICES"):
        run_ranks(AllReduce, [[randn(5, 32)], [randn(5, 32)]])


def test_a_rank_outside_of_its_group_is_refused_when_recorded() -> None:
    with pytest.raises(GraphError, match="rank 2 does not exist in a group of 2"):
        AllReduce(rank=2, rank_size=2)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_engines_of_one_process_refuse_a_group_of_several(backend: str) -> None:
    with Network() as net:
        net.mark_output(record(AllReduce(rank=0, rank_size=2), [Tensor("x", (2, 16), DataType.FLOAT)])[0], "out")
    engine = net.build_engine(["All"], backend=backend)
    with pytest.raises(EngineError, match="2 ranks"):
        engine.forward({"x": torch.ones(2, 16)})
