# SPDX-License-Identifier: Apache-2.0
"""A saved network is the network; a damaged file is an error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from atb_core.errors import GraphError
from atb_core.graph import DataType, Dim, Network, Tensor
from atb_core.graph.passes import run_passes
from atb_core.graph.serialize import load_network, save_network
from atb_core.nn import functional as F


def example() -> Network:
    t = Dim("T")
    with Network("example") as net:
        x = Tensor("x", (t, 32), DataType.FLOAT)
        net.weights_keys |= {"w", "g"}
        y = F.linear(x, Tensor("w", (64, 32), DataType.FLOAT))
        a, b = F.split(y, [32, 32], -1)
        total = a.reshape([-1, 2, 16]).reshape([-1, 32]) + b
        net.mark_output(F.rms_norm(total, Tensor("g", (32,), DataType.FLOAT), 1e-6).to(DataType.BF16), "y")
        net.mark_output(F.cat([total, x], 0), "longer")
    return net


@pytest.mark.parametrize("passes", [False, True])
def test_a_loaded_network_prints_and_computes_the_same(tmp_path: Path, passes: bool) -> None:
    net = run_passes(example(), "reference") if passes else example()
    save_network(net, tmp_path / "n.atbnet")
    loaded = load_network(tmp_path / "n.atbnet")
    assert str(loaded) == str(net)
    weights = {"w": torch.randn(64, 32), "g": torch.randn(32)}
    results = []
    for variant in (net, loaded):
        engine = variant.build_engine(backend="reference")
        engine.set_weights(weights)
        results.append(engine.forward({"x": torch.arange(96.0).view(3, 32)}))
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])
    assert results[0]["longer"].shape == (6, 32)


def test_a_mixture_of_experts_survives_saving(tmp_path: Path) -> None:
    with Network("moe") as net:
        x = Tensor("x", (Dim("T"), 16), DataType.BF16)
        weights, chosen, _ = F.moe_topk_softmax(F.linear(x, Tensor("gate", (5, 16), DataType.BF16)), 2, normalize=True)
        rows, places, ends = F.moe_init_routing(x, chosen, 2, 5)
        bias = Tensor("bias", (5, 16), DataType.BF16)
        rows = F.grouped_matmul(rows, Tensor("experts", (5, 16, 16), DataType.BF16), bias, ends, transpose_b=True)
        net.mark_output(F.moe_token_unpermute(rows, places, weights), "y")
    save_network(net, tmp_path / "n.atbnet")
    loaded = load_network(tmp_path / "n.atbnet")
    assert str(loaded) == str(net)
    assert [node.op for node in loaded] == [node.op for node in net]


def test_a_shape_function_cannot_be_saved(tmp_path: Path) -> None:
    with Network() as net:
        net.mark_output(F.neg(Tensor("x").reshape(lambda s: s)), "y")
    with pytest.raises(GraphError, match="cannot be saved"):
        save_network(net, tmp_path / "n.atbnet")
    assert list(tmp_path.iterdir()) == []


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "n.atbnet"
    save_network(example(), path)
    whole = path.read_text()
    data = json.loads(whole)
    for text in (whole[: len(whole) // 2], "[]", "{}", "[" * 100_000, whole.replace('"Linear"', '"Linaer"'),
                 whole.replace('"op_set": 1', '"op_set": 99')):  # fmt: skip
        path.write_text(text)
        with pytest.raises(GraphError):
            load_network(path)
    for edit in (
        lambda d: d["nodes"][0]["inputs"].__setitem__(0, 999),
        lambda d: d["nodes"][0]["inputs"].__setitem__(0, -1),
        lambda d: d["nodes"][0]["attributes"].__setitem__("hidden", 1),
        lambda d: d["tensors"][0].__setitem__("dtype", "float12"),
        lambda d: d["nodes"].pop(0),
        lambda d: d["outputs"].append(0),
    ):
        broken = json.loads(json.dumps(data))
        edit(broken)
        path.write_text(json.dumps(broken))
        with pytest.raises(GraphError):
            load_network(path)
    with pytest.raises(GraphError, match="cannot be read"):
        load_network(tmp_path / "absent.atbnet")
