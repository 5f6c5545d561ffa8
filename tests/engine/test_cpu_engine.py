# SPDX-License-Identifier: Apache-2.0
"""The C++ engine through its Python interface: what runs, what it gives, how weights are kept."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from engine.networks import HIDDEN, VOCAB, tiny_engine, tiny_network, tiny_weights

from atb_core.engine import get_backend
from atb_core.engine.cpu import CpuBackend
from atb_core.engine.reference import ReferenceBackend
from atb_core.errors import BackendUnavailableError, EngineError
from atb_core.graph import DataType, Dim, Network, Tensor
from atb_core.nn.functional import linear, reshape_and_cache

FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def reference_logits(weights: dict[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
    engine = ReferenceBackend().build(tiny_network())
    engine.set_weights(weights)
    return engine.forward({"ids": ids})["logits"]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_a_matmul_of_two_inputs_runs_without_declared_shapes(dtype: torch.dtype) -> None:
    with Network("matmul") as net:
        net.mark_output(linear(Tensor("x"), Tensor("weight"), None, False, False), "out")
    engine = net.build_engine()
    x, weight, out = torch.rand(100, 200).to(dtype), torch.rand(200, 300).to(dtype), torch.empty(100, 300, dtype=dtype)
    engine.forward({"x": x, "weight": weight}, {"out": out})
    torch.testing.assert_close(out, (x.float() @ weight.float()).to(dtype), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_matrix_gives_the_same_bits_as_weight_and_as_input(transposed: bool) -> None:
    x, weight = torch.randn(5, 70), torch.randn(33, 70) if transposed else torch.randn(70, 33)
    results = []
    for keys in (set[str](), {"weight"}):
        with Network("product") as net:
            declared = Tensor("x", (5, 70), DataType.FLOAT), Tensor("weight", tuple(weight.shape), DataType.FLOAT)
            net.mark_output(linear(*declared, None, False, transposed), "out")
        net.weights_keys |= keys
        engine = CpuBackend(num_threads=2).build(net)
        if keys:
            engine.set_weights({"weight": weight})
        results.append(engine.forward({"x": x} if keys else {"x": x, "weight": weight})["out"])
    assert torch.equal(*results)


def test_outputs_are_filled_when_given_and_made_when_not() -> None:
    engine, ids = tiny_engine(), torch.tensor([3, 1, 2])
    given = torch.empty(3, VOCAB)
    results = engine.forward({"ids": ids}, {"logits": given})
    assert results["logits"] is given
    assert torch.equal(engine.forward({"ids": ids})["logits"], given)


def test_arrays_may_change_from_call_to_call() -> None:
    engine, ids, logits = tiny_engine(), np.array([3, 1]), np.empty((2, VOCAB), np.float32)
    rows = engine.forward({"ids": np.arange(VOCAB)})["logits"]
    resized, aside = np.array([5, 0, 2]), np.array([[7, 8], [2, 9]])
    for given in (ids, ids, resized[:2], aside[0]):
        engine.forward({"ids": given}, {"logits": logits})
        assert np.array_equal(logits, rows[given])
        ids[:] = ids[::-1]
    ids.shape = (2, 1)
    for refused in (ids, aside[:, 0], resized):
        with pytest.raises(EngineError):
            engine.forward({"ids": refused}, {"logits": logits})
    logits.flags.writeable = False
    with pytest.raises(EngineError, match="read-only"):
        engine.forward({"ids": resized[:2]}, {"logits": logits})


@pytest.mark.parametrize("shapes", [True, False], ids=["declared", "undeclared"])
def test_weights_may_come_in_parts_and_be_dropped(shapes: bool) -> None:
    engine = CpuBackend(num_threads=2).build(tiny_network(shapes=shapes))
    weights = tiny_weights()
    for name, value in weights.items():
        copy = value.clone()
        engine.set_weights({name: copy})
        copy.fill_(float("nan"))
    ids = torch.tensor([0, 5, VOCAB - 1])
    torch.testing.assert_close(engine.forward({"ids": ids})["logits"], reference_logits(weights, ids))


def test_engines_of_one_store_share_one_copy_of_each_weight() -> None:
    backend = CpuBackend(num_threads=2)
    store = backend.new_store()
    first, second = (backend.build(tiny_network(), store) for _ in range(2))
    first.set_weights(tiny_weights())
    size = store.nbytes
    ids = torch.tensor([1, 2])
    assert torch.equal(first.forward({"ids": ids})["logits"], second.forward({"ids": ids})["logits"])
    assert store.nbytes == size
    assert "norm" in store
    assert "bias" not in store


def test_a_tied_matrix_is_packed_once_for_lookup_and_product() -> None:
    engine = tiny_engine()
    assert engine.store.handle.info("embedding")["packed"]
    assert engine.store.spec("embedding") == ((VOCAB, HIDDEN), DataType.FLOAT)


def test_caches_are_bound_once_and_written_in_place() -> None:
    tokens, blocks = Dim("tokens"), Dim("blocks")
    with Network("cache") as net:
        k, v = (Tensor(name, (tokens, 2, 8), DataType.BF16) for name in "kv")
        k_cache, v_cache = (Tensor(f"{name}_cache", (blocks, 4, 2, 8), DataType.BF16) for name in "kv")
        reshape_and_cache(k, v, k_cache, v_cache, Tensor("slots", (tokens,), DataType.INT32))
    engine = CpuBackend(num_threads=2).build(net)
    caches = {f"{name}_cache": torch.zeros(3, 4, 2, 8, dtype=torch.bfloat16) for name in "kv"}
    engine.set_kv_caches(caches)
    new = {name: torch.randn(2, 2, 8).bfloat16() for name in "kv"}
    engine.forward({**new, "slots": torch.tensor([9, 2], dtype=torch.int32)})
    for name in "kv":
        rows = caches[f"{name}_cache"].view(12, 2, 8)
        assert torch.equal(rows[[9, 2]], new[name])
        assert rows.count_nonzero() == new[name].count_nonzero()
    with pytest.raises(EngineError, match="slot") as error:
        engine.forward({**new, "slots": torch.tensor([0, 12], dtype=torch.int32)})
    assert "ReshapeAndCache" in str(error.value)
    assert "12" in str(error.value)


def test_recorded_runs_have_the_time_of_every_node() -> None:
    engine = tiny_engine()
    ids = torch.tensor([1])
    engine.forward({"ids": ids})
    assert engine.take_runs() == []
    engine.set_recording(True)
    started = time.perf_counter_ns()
    for _ in range(3):
        engine.forward({"ids": ids})
    runs = engine.take_runs()
    assert [[run.network.nodes[i].op.name for i in run.steps] for run in runs] == 3 * [["Gather", "RmsNorm", "Linear"]]
    for run in runs:
        first = list(run.threads[0])
        assert [started, run.begin, *first, run.end] == sorted([started, run.begin, *first, run.end])
    assert engine.take_runs() == []
    engine.set_recording(False)
    engine.forward({"ids": ids})
    assert engine.take_runs() == []


def test_the_engine_prints_as_its_network_and_machine() -> None:
    text = str(tiny_engine(num_threads=2))
    assert "threads: 2" in text
    assert "RmsNorm" in text


def test_backends_that_cannot_be_had_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendUnavailableError, match="mmx"):
        get_backend("cpu", isa="mmx")
    monkeypatch.setenv("ATB_CPU_ISA", "mmx")
    with pytest.raises(BackendUnavailableError, match="ATB_CPU_ISA=mmx is not an instruction set level"):
        get_backend("cpu")
    monkeypatch.delenv("ATB_CPU_ISA")
    monkeypatch.setenv("ATB_NUM_THREADS", "many")
    with pytest.raises(BackendUnavailableError, match="ATB_NUM_THREADS=many"):
        get_backend("cpu")
    with pytest.raises(EngineError, match="num_threads"):
        get_backend("cpu", num_threads=0)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("0", "0"), ("128", "128"), ("7", "ATB_PREFETCH_AHEAD=7 is not"), ("1e9", "ATB_PREFETCH_AHEAD=1e9 is not")],
)
def test_the_distance_of_fetching_can_be_set(value: str, expected: str) -> None:
    """It is one for the whole process, hence another process."""
    code = "from atb_core.engine import get_backend; print(get_backend('cpu').runtime.prefetch_ahead)"
    environment = {**os.environ, "ATB_PREFETCH_AHEAD": value}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert run.stdout.strip() == expected if run.returncode == 0 else expected in run.stderr
    assert (run.returncode == 0) == expected.isdecimal()
