# SPDX-License-Identifier: Apache-2.0
"""The installed simulator loads in this core and runs a graph."""

from __future__ import annotations

import importlib.metadata

import torch

from atb_ascend.backend import load_simulator
from atb_core.engine import get_backend
from atb_core.engine.native import INTERFACE_VERSION
from atb_core.graph import DataType, Dim, Network, Tensor
from atb_core.nn.functional import linear


def test_the_module_is_built_for_the_interface_of_this_core() -> None:
    extension = load_simulator()
    assert extension.__name__ == "atb_sim._atb_sim"
    assert extension.INTERFACE_VERSION == INTERFACE_VERSION


def test_a_graph_gives_the_same_on_the_simulator_and_on_the_reference() -> None:
    with Network("small") as net:
        x = Tensor("x", (Dim("tokens"), 64), DataType.FLOAT16)
        weight = Tensor("weight", (128, 64), DataType.FLOAT16)
        net.weights_keys.add("weight")
        net.mark_output(linear(x, weight), "y")
    generator = torch.Generator().manual_seed(0)
    x_value = torch.randn(5, 64, generator=generator).half()
    weight_value = torch.randn(128, 64, generator=generator).half()
    results = {}
    for backend in ("atb-sim", "reference"):
        engine = get_backend(backend).build(net)
        engine.set_weights({"weight": weight_value})
        results[backend] = engine.forward({"x": x_value})["y"]
    torch.testing.assert_close(results["atb-sim"], results["reference"], rtol=1e-3, atol=1e-2)


def test_the_package_requires_the_core_that_it_is_built_for() -> None:
    requirements = importlib.metadata.requires("atb-sim") or []
    assert any(line.startswith("atb-core") for line in requirements)
