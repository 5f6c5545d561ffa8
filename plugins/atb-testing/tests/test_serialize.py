# SPDX-License-Identifier: Apache-2.0
"""A saved network is the network; a damaged file is an error."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from atb_core.errors import GraphError
from atb_core.graph import DataType, Dim, Network, Tensor
from atb_core.graph.passes import run_passes
from atb_core.nn import functional as F
from atb_testing.serialize import load_network, save_network


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


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "n.atbnet"
    save_network(example(), path)
    return path


def test_loading_knows_every_op_without_a_further_import(saved: Path) -> None:
    code = f"from atb_testing.serialize import load_network; print(len(load_network({str(saved)!r}).nodes))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == str(len(example().nodes)), done.stderr


WRONG: dict[str, tuple[Callable[[Any], Any], str]] = {
    "an attribute of another type": (
        lambda d: d["nodes"][0]["attributes"].__setitem__("has_bias", "no"),
        "node 0: Linear: has_bias of Linear cannot be 'no': it must be True or False",
    ),
    "an attribute that no tensor has": (
        lambda d: d["nodes"][1]["attributes"].__setitem__("split_dim", 10**30),
        "node 1: Split: split_dim of Split cannot be .*64 bits",
    ),
    "a list in place of a number": (
        lambda d: d["nodes"][4]["attributes"].__setitem__("var_attr", [1]),
        "node 4: Elewise: var_attr of Elewise cannot be",
    ),
    "an element type that is none": (
        lambda d: d["nodes"][0]["attributes"].__setitem__("out_dtype", "complex7"),
        "node 0: Linear: unknown element type 'complex7'",
    ),
    "a number in place of a shape": (
        lambda d: d["nodes"][2]["attributes"].__setitem__("shape", 7),
        "node 2: Reshape: 7 is not a shape",
    ),
    "too few versions": (
        lambda d: d["nodes"][0]["versions"].pop(),
        "node 0: Linear: it has 2 inputs, 1 versions and 1 out",
    ),
    "an output without a name": (lambda d: d["tensors"][d["outputs"][0]].__setitem__("name", None), "no name"),
    "no nodes": (lambda d: d.pop("nodes"), "it has no nodes"),
    "nodes as text": (lambda d: d.__setitem__("nodes", "many"), "nodes is 'many', which is not of the type list"),
    "a node that is none": (lambda d: d["nodes"].__setitem__(3, None), "node 3: None is not an object"),
    "a size beyond all": (lambda d: d["tensors"][1].__setitem__("shape", [1 << 70, 32]), "tensor 1: a size is beyond"),
    "a size below zero": (lambda d: d["tensors"][1].__setitem__("shape", [-4, 32]), "tensor 1: -4 is not a size"),
    "a division by zero": (
        lambda d: d["tensors"][0].__setitem__("shape", [[[1, [[[[1, ["T"]]], 0]]]], 32]),
        "tensor 0: cannot divide the size T by 0",
    ),
    "a sum that explodes": (
        lambda d: d["tensors"][0].__setitem__("shape", [[[1, [f"a{i}"]] for i in range(400)], 32]),
        "tensor 0: a list is not part of a symbolic size",
    ),
    "a product that explodes": (
        lambda d: d["tensors"][0].__setitem__(
            "shape", [[[1, [[[[4, [f"{n}{i}"]] for i in range(16)], 2] for n in "abc"]]], 32]
        ),
        "tensor 0: a symbolic size has 256 terms",
    ),
    "an op of many parts": (
        lambda d: d["nodes"][0].update(op="MergedLinear", attributes={"parts": 10**15}),
        "node 0: MergedLinear: it has 2 inputs, 2 versions and 1 outputs, which its attributes contradict",
    ),
    "a name that writes on the terminal": (
        lambda d: d["tensors"][0].__setitem__("name", "x\x1b[2J"),
        "tensor 0: name is .* control characters",
    ),
    "a text without an end": (lambda d: d.__setitem__("name", "n" * 100_000), "name is .*, beyond the limit of 4096"),
    "a type as an object": (lambda d: d["tensors"][0].__setitem__("dtype", {}), "tensor 0: dtype is {}"),
    "weights that are no names": (lambda d: d.__setitem__("weights", [[]]), r"weight is \[\]"),
}


@pytest.mark.parametrize(("edit", "cause"), WRONG.values(), ids=WRONG.keys())
def test_the_error_names_file_node_and_cause(saved: Path, edit: Callable[[Any], Any], cause: str) -> None:
    data = json.loads(saved.read_text())
    edit(data)
    saved.write_text(json.dumps(data))
    with pytest.raises(GraphError, match=f"^{saved}: .*{cause}") as error:
        load_network(saved)
    assert len(str(error.value)) < 1000


def test_a_size_of_many_digits_and_a_deep_file_are_refused(saved: Path) -> None:
    whole = saved.read_text()
    for text in (whole.replace("32", "9" * 400, 1), whole.replace("null", "[" * 500 + "]" * 500, 1),
                 whole.replace("1e-06", "1e999", 1)):  # fmt: skip
        assert text != whole
        saved.write_text(text)
        with pytest.raises(GraphError, match=str(saved)):
            load_network(saved)


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.atbnet")
    (tmp_path / "endless.atbnet").symlink_to("/dev/zero")
    for name in ("pipe.atbnet", "endless.atbnet"):
        with pytest.raises(GraphError, match="not a regular file"):
            load_network(tmp_path / name)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a JSON document: its container and its key there."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in list(pairs):
        yield value, key
        yield from places(child)


def test_a_file_with_any_one_value_replaced_loads_and_builds_or_is_refused(saved: Path) -> None:
    whole, rng = saved.read_text(), random.Random(0)
    values = (None, True, -1, 0, 1, 2**40, 2**64, 0.5, "", "Linear", "float32", [], [1], [[1, ["T"]]], {}, {"a": 1})
    count = len(list(places(json.loads(whole))))
    for index in range(count):
        data = json.loads(whole)
        container, key = list(places(data))[index]
        container[key] = rng.choice(values)
        saved.write_text(json.dumps(data))
        try:
            load_network(saved).build_engine(backend="cpu")
        except GraphError:
            continue
