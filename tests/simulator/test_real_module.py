# SPDX-License-Identifier: Apache-2.0
"""Behaviour of the module for real devices alone: torch_npu's stream, and finding out what is missing.

The extension over ATB cannot be built here. Its place takes the one over the simulator, which is the same C++, and
torch_npu's a stand-in with the few functions that are called.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator

import pytest
import torch
from simulator.simulated import run_python

import atb_ascend
import atb_ascend.backend as atb
from atb_ascend.backend import AtbBackend, load_simulator
from atb_core.engine import get_backend
from atb_core.errors import BackendUnavailableError, EngineError
from atb_core.graph import DataType, Network, Tensor
from atb_core.nn.functional import linear


@pytest.fixture
def torch_npu(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.SimpleNamespace]:
    """A machine on which everything is installed; `chosen` are the devices that were asked for."""
    sim = load_simulator().sim
    stream = sim.create_stream()
    chosen: list[int] = []
    current = types.SimpleNamespace(npu_stream=stream, synchronize=lambda: None)
    npu = types.SimpleNamespace(set_device=chosen.append, current_stream=lambda: current)
    module = types.ModuleType("torch_npu")
    module.npu = npu  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_npu", module)
    monkeypatch.setattr(atb, "_DEVICE_MODULE", "atb_sim._atb_sim")
    monkeypatch.setattr(atb, "missing_for_backend", list)
    atb._shared_device.cache_clear()
    yield types.SimpleNamespace(stream=stream, chosen=chosen, sim=sim)
    atb._shared_device.cache_clear()
    sim.destroy_stream(stream)


def product() -> Network:
    with Network("product") as net:
        x, weight = Tensor("x", (4, 32), DataType.FLOAT16), Tensor("w", (32, 16), DataType.FLOAT16)
        net.mark_output(linear(x, weight, None, False, False), "y")
    return net


def test_operations_run_on_torchs_own_stream(torch_npu: types.SimpleNamespace) -> None:
    before = torch_npu.sim.counters()["live_streams"]
    backend = AtbBackend(device_id=0)
    assert torch_npu.chosen == [0]
    assert torch_npu.sim.counters()["live_streams"] == before, "the device made a stream of its own"
    engine = backend.build(product())
    x, w = torch.randn(4, 32).half(), torch.randn(32, 16).half()
    torch.testing.assert_close(
        engine.forward({"x": x, "w": w})["y"], (x.float() @ w.float()).half(), rtol=1e-3, atol=1e-2
    )


def test_a_stream_of_torchs_is_not_destroyed_with_the_device(torch_npu: types.SimpleNamespace) -> None:
    before = torch_npu.sim.counters()["live_streams"]
    extension = load_simulator()
    device = extension.Device(0, torch_npu.stream)
    del device
    assert torch_npu.sim.counters()["live_streams"] == before


def test_a_cache_that_torch_finds_no_memory_for_is_an_error_of_ours(
    torch_npu: types.SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def zeros(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("NPU out of memory. Tried to allocate 64.00 MiB\na second line")

    backend = AtbBackend(device_id=0)
    monkeypatch.setattr(torch, "zeros", zeros)
    with pytest.raises(EngineError) as caught:
        backend.allocate((1 << 25,), torch.float16)
    assert caught.value.message == (
        "device 0 has no 64 MiB for a key/value cache: NPU out of memory. Tried to allocate 64.00 MiB"
    )


AT_EXIT = """
import atexit, sys, types
import torch
import atb_ascend.backend as atb
from atb_core.graph import DataType, Network, Tensor
from atb_core.nn.functional import linear

sim = atb.load_simulator().sim
stream = sim.create_stream()
current = types.SimpleNamespace(npu_stream=stream, synchronize=lambda: None)
sys.modules["torch_npu"] = types.ModuleType("torch_npu")
sys.modules["torch_npu"].npu = types.SimpleNamespace(set_device=lambda id: None, current_stream=lambda: current)
atb._DEVICE_MODULE, atb.missing_for_backend = "atb_sim._atb_sim", list

def end():  # what torch_npu does when it is unloaded
    global backend, engine
    sim.destroy_stream(stream)
    left = [sim.counters()[name] for name in ("live_contexts", "live_streams")]
    calls = sim.calls()
    del backend, engine
    atb._shared_device.cache_clear()
    print(left, sim.calls() - calls)

atexit.register(end)
with Network("product") as net:
    x, weight = Tensor("x", (4, 32), DataType.FLOAT16), Tensor("w", (32, 16), DataType.FLOAT16)
    net.mark_output(linear(x, weight, None, False, False), "y")
backend = atb.AtbBackend()
engine = backend.build(net)
engine.forward({"x": torch.ones(4, 32).half(), "w": torch.ones(32, 16).half()})
"""


def test_the_device_is_closed_before_torch_npu_ends_and_nothing_is_given_back_later() -> None:
    assert run_python(AT_EXIT) == "[0, 0] 0\n"


def test_a_torch_npu_that_cannot_be_imported_makes_the_backend_unavailable(
    torch_npu: types.SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch_npu", None)
    with pytest.raises(BackendUnavailableError, match=r"torch_npu cannot be imported: ModuleNotFoundError: ") as caught:
        AtbBackend()
    assert caught.value.hint == "Run `atb doctor`."
    assert isinstance(caught.value.__cause__, ImportError)


def test_a_device_that_torch_npu_refuses_makes_the_backend_unavailable(
    torch_npu: types.SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(device: int) -> None:
        raise RuntimeError(f"SetDevice: Invalid device ID {device}")

    monkeypatch.setattr(sys.modules["torch_npu"].npu, "set_device", refuse)
    with pytest.raises(BackendUnavailableError, match="torch_npu cannot use device 7: SetDevice: Invalid") as caught:
        AtbBackend(device_id=7)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_cache_on_the_host_is_refused(torch_npu: types.SimpleNamespace) -> None:
    from atb_core.errors import EngineError

    engine = AtbBackend().build(product())
    with pytest.raises(EngineError, match="is not in device memory"):
        engine.set_kv_caches({"x": torch.zeros(4, 32).half()})


@pytest.mark.skipif(not atb_ascend.missing_for_backend(), reason="this machine has everything that the backend needs")
def test_without_ascends_software_the_backend_says_what_is_missing() -> None:
    with pytest.raises(BackendUnavailableError) as caught:
        get_backend("atb")
    text = str(caught.value)
    for finding in atb_ascend.missing_for_backend():
        assert f"{finding.check}:" in text
    assert "atb doctor" in text
