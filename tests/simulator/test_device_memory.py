# SPDX-License-Identifier: Apache-2.0
"""Inputs and outputs on the device: the engine copies nothing, and is given what it has to read on the host."""

from __future__ import annotations

import pytest
import torch
from simulator.simulated import counted

from atb_ascend.backend import AtbBackend
from atb_core.errors import EngineError
from atb_core.graph import DataType, Dim, Network, Tensor, record
from atb_core.graph.ops import PagedAttention
from atb_core.graph.tensor import Tensor as Symbol
from atb_core.nn.functional import linear

HALF, INT = DataType.FLOAT16, DataType.INT32


def on_device(backend: AtbBackend, value: torch.Tensor) -> torch.Tensor:
    return backend.allocate(tuple(value.shape), value.dtype).copy_(value)


def product() -> Network:
    with Network("product") as net:
        x, weight = Tensor("x", (Dim("rows"), 32), HALF), Tensor("w", (32, 16), HALF)
        net.mark_output(linear(x, weight, None, False, False), "y")
    return net


def test_what_lies_on_the_device_is_not_copied() -> None:
    backend = AtbBackend(simulator=True)
    engine = backend.build(product())
    x, w = torch.randn(4, 32).half(), torch.randn(32, 16).half()
    expected = engine.forward({"x": x, "w": w})["y"]
    given = {"x": on_device(backend, x), "w": on_device(backend, w)}
    result = backend.allocate((4, 16), torch.float16)
    with counted() as found:
        engine.forward(given, {"y": result})
    assert torch.equal(result, expected)
    assert (found["copies_h2d"], found["copies_d2h"]) == (0, 0)


def test_host_and_device_may_be_mixed() -> None:
    backend = AtbBackend(simulator=True)
    engine = backend.build(product())
    x, w = torch.randn(4, 32).half(), torch.randn(32, 16).half()
    expected = engine.forward({"x": x, "w": w})["y"]
    assert torch.equal(engine.forward({"x": x, "w": on_device(backend, w)})["y"], expected)


def test_a_constant_on_the_device_stays_where_it_is() -> None:
    backend = AtbBackend(simulator=True)
    engine = backend.build(product())
    x, w = torch.randn(4, 32).half(), torch.randn(32, 16).half()
    expected = engine.forward({"x": x, "w": w})["y"]
    engine.set_constants({"w": on_device(backend, w)})
    assert torch.equal(engine.forward({"x": x})["y"], expected)


def test_wrong_tensors_on_the_device_are_refused() -> None:
    backend = AtbBackend(simulator=True)
    engine = backend.build(product())
    w = on_device(backend, torch.randn(32, 16).half())
    with pytest.raises(EngineError, match="must be float16"):
        engine.forward({"x": backend.allocate((4, 32), torch.float32), "w": w})
    with pytest.raises(EngineError, match="missing: x"):
        engine.forward({"w": w})


def attention(backend: AtbBackend) -> tuple[object, dict[str, torch.Tensor]]:
    cache = (Dim("blocks"), 16, 2, 16)
    with Network("attention") as net:
        inputs: list[Symbol] = [
            Tensor("q", (Dim("tokens"), 2, 16), HALF),
            Tensor("k", cache, HALF),
            Tensor("v", cache, HALF),
            Tensor("tables", (Dim("tokens"), 2), INT),
            Tensor("lens", (Dim("tokens"),), INT),
        ]
        net.mark_output(record(PagedAttention(2, 2), inputs)[0], "out")
    values = {
        "q": torch.randn(1, 2, 16).half(),
        "k": torch.randn(4, 16, 2, 16).half(),
        "v": torch.randn(4, 16, 2, 16).half(),
        "tables": torch.tensor([[3, 1]], dtype=torch.int32),
        "lens": torch.tensor([20], dtype=torch.int32),
    }
    return backend.build(net), values


def test_lengths_on_the_device_need_a_copy_that_the_host_can_read() -> None:
    backend = AtbBackend(simulator=True)
    engine, values = attention(backend)
    expected = engine.forward(values)["out"]  # type: ignore[attr-defined]
    given = {**values, "lens": on_device(backend, values["lens"])}
    with pytest.raises(EngineError, match=r"'lens' lies on the device.*runtime_params"):
        engine.forward(given)  # type: ignore[attr-defined]
    result = engine.forward(given, runtime_params={"lens": values["lens"]})["out"]  # type: ignore[attr-defined]
    assert torch.equal(result, expected)
