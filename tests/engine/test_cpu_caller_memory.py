# SPDX-License-Identifier: Apache-2.0
"""Callers may write to tensors while a run uses them, and pass tensors whose memory needs a second look."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from atb_core.engine.cpu import CpuBackend
from atb_core.engine.kernel_abi import KernelCall
from atb_core.engine.kernels import CpuKernel, register_cpu_kernel
from atb_core.engine.reference import ReferenceBackend
from atb_core.errors import EngineError
from atb_core.graph import DataType, Dim, Network, Op, Tensor, record
from atb_core.graph.dim import Shape
from atb_core.graph.op import _registry, registered_ops
from atb_core.nn.functional import gather, moe_init_routing, paged_attention, reshape_and_cache

OUTSIDE = 2**30


@pytest.fixture(scope="module", autouse=True)
def _only_for_these_tests() -> Iterator[None]:
    before = dict(_registry)
    yield
    _registry.clear()
    _registry.update(before)


@dataclass(frozen=True)
class Between(Op, namespace="test_caller"):
    """Returns its input, after something has happened."""

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        return (shapes[0],)

    def reference(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (inputs[0],)


happens: Callable[[], None] = lambda: None  # noqa: E731


def copy(call: KernelCall) -> None:
    happens()
    call.outputs[0].array()[:] = call.inputs[0].array()


KERNEL = CpuKernel.from_python(copy)


def between(x: Tensor) -> Tensor:
    """Does what the test sets as `happens` when this node of the network runs."""
    register_cpu_kernel(Between, KERNEL)
    return record(Between(), (x,))[0]


def spoil(monkeypatch: pytest.MonkeyPatch, *tensors: torch.Tensor) -> None:
    def write() -> None:
        for tensor in tensors:
            tensor.fill_(OUTSIDE)

    monkeypatch.setitem(globals(), "happens", write)


def run(net: Network, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return CpuBackend(num_threads=2, small_work=0).build(net).forward(inputs)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_indices_are_those_of_the_call(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    with Network("gather") as net:
        kind = DataType.INT32 if dtype is torch.int32 else DataType.INT64
        net.mark_output(gather(between(Tensor("x", (5, 3), DataType.FLOAT)), 0, Tensor("i", (2,), kind)), "y")
    x, i = torch.randn(5, 3), torch.tensor([4, 1], dtype=dtype)
    spoil(monkeypatch, i)
    assert torch.equal(run(net, {"x": x, "i": i})["y"], x[[4, 1]])


def test_slots_lengths_and_block_tables_are_those_of_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def network(first: Callable[[Tensor], Tensor]) -> Network:
        with Network("decode") as net:
            q, k, v = (Tensor(n, (2, 1, 8), DataType.FLOAT) for n in "qkv")
            k_cache, v_cache = (Tensor(n, (4, 2, 1, 8), DataType.FLOAT) for n in ("k_cache", "v_cache"))
            slots, lengths = Tensor("slots", (2,), DataType.INT32), Tensor("lengths", (2,), DataType.INT32)
            tables = Tensor("tables", (2, 2), DataType.INT32)
            reshape_and_cache(first(k), v, k_cache, v_cache, slots)
            out = paged_attention(
                q, k_cache=k_cache, v_cache=v_cache, block_table=tables, kv_lens=lengths, head_num=1, kv_head_num=1,
                qk_scale=0.35,
            )  # fmt: skip
            net.mark_output(out, "out")
        return net

    def inputs() -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(3)
        values = {n: torch.randn(2, 1, 8, generator=generator) for n in "qkv"}
        values |= {n: torch.randn(4, 2, 1, 8, generator=generator) for n in ("k_cache", "v_cache")}
        numbers = {"slots": [3, 6], "lengths": [4, 1], "tables": [[0, 1], [3, 2]]}
        return values | {n: torch.tensor(v, dtype=torch.int32) for n, v in numbers.items()}

    expected = run(network(lambda k: k), inputs())["out"]
    given = inputs()
    spoil(monkeypatch, given["slots"], given["lengths"], given["tables"])
    assert torch.equal(run(network(between), given)["out"], expected)
    assert int(given["slots"][0]) == OUTSIDE


def test_outputs_of_integers_are_not_read_from_the_callers_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The places of rows are an output, and indices of a later node."""
    with Network("routing") as net:
        x, experts = Tensor("x", (3, 4), DataType.FLOAT), Tensor("experts", (3, 2), DataType.INT32)
        rows, places, _ = moe_init_routing(x, experts, 2, 4)
        net.mark_output(places, "places")
        net.mark_output(gather(between(rows), 0, places), "y")
    x, chosen = torch.randn(3, 4), torch.tensor([[3, 0], [1, 3], [0, 2]], dtype=torch.int32)
    places = torch.empty(6, dtype=torch.int32)
    spoil(monkeypatch, places)
    engine = CpuBackend(num_threads=2).build(net)
    results = engine.forward({"x": x, "experts": chosen}, {"places": places})
    assert torch.equal(results["y"], x.repeat_interleave(2, 0))
    assert sorted(places.tolist()) == list(range(6))


@pytest.mark.parametrize("backend", [CpuBackend, ReferenceBackend])
def test_tensors_without_bytes_run(backend: Any) -> None:
    with Network("empty rows") as net:
        x, i = Tensor("x", (Dim("rows"), Dim("width")), DataType.FLOAT), Tensor("i", (Dim("n"),), DataType.INT64)
        net.mark_output(record(registered_ops()["Gather"](), (x, i))[0], "rows of x")
        experts = Tensor("experts", (Dim("rows"), 2), DataType.INT32)
        net.mark_output(moe_init_routing(x, experts, 2, 3)[0], "routed")
    engine = backend().build(net)
    for rows, width, n in ((4, 0, 3), (4, 5, 0), (0, 5, 0), (0, 0, 0)):
        indices, experts = torch.arange(n), torch.zeros(rows, 2, dtype=torch.int32)
        results = engine.forward({"x": torch.ones(rows, width), "i": indices, "experts": experts})
        assert results["rows of x"].shape == (n, width) and results["routed"].shape == (2 * rows, width)
    with pytest.raises(EngineError, match="index"):
        engine.forward({"x": torch.ones(2, 0), "i": torch.tensor([2]), "experts": torch.zeros(2, 2, dtype=torch.int32)})


@pytest.mark.parametrize("backend", [CpuBackend, ReferenceBackend])
@pytest.mark.parametrize("known", [True, False], ids=["shapes known", "shapes open"])
def test_negative_views_are_refused_wherever_tensors_come_in(backend: Any, known: bool) -> None:
    with Network("sum") as net:
        names = ("x", "w", "cache", "table")
        x, w, cache, table = (Tensor(n, (3,), DataType.FLOAT) if known else Tensor(n) for n in names)
        net.mark_output(x + w + cache + table, "y")
    net.weights_keys.add("w")
    engine = backend().build(net)
    plain, negative = torch.ones(3), torch._neg_view(torch.ones(3))
    calls: list[tuple[str, Callable[[torch.Tensor], Any]]] = [
        ("w", lambda t: engine.set_weights({"w": t})),
        ("cache", lambda t: engine.set_kv_caches({"cache": t})),
        ("table", lambda t: engine.set_constants({"table": t})),
        ("x", lambda t: engine.forward({"x": t})),
        ("y", lambda t: engine.forward({"x": plain}, {"y": t})),
    ]
    for name, call in calls:
        with pytest.raises(EngineError, match=rf"'{name}' is a negative view of its memory\. Pass tensor\.resolve_neg"):
            call(negative)
        call(plain.clone())
    assert engine.forward({"x": negative.resolve_neg()})["y"].tolist() == [2.0] * 3
