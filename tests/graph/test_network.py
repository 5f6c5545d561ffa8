# SPDX-License-Identifier: Apache-2.0
"""Recording: what a network knows of what was written, and how it answers mistakes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from atb_core.errors import EngineError, GraphError, ShapeError
from atb_core.graph import DataType, Dim, Network, Tensor, get_default_net
from atb_core.graph.network import _current
from atb_core.graph.source import module_scope
from atb_core.nn import functional

T = Dim("T")


def test_a_node_remembers_its_module_and_the_authors_line() -> None:
    with Network() as net, module_scope("model"), module_scope("layers.0"):
        functional.neg(Tensor("x"))
    (node,) = net.nodes
    assert node.module_path == "model.layers.0"
    assert Path(node.source.rsplit(":", 1)[0]) == Path(__file__)


def test_shape_mistakes_are_found_while_recording_and_name_everything() -> None:
    with Network(), module_scope("mlp"), pytest.raises(ShapeError) as caught:
        functional.linear(Tensor("x", (T, 64)), Tensor("w", (10, 32)))
    message = str(caught.value)
    for part in ("Linear", "[T, 64]", "[10, 32]", "in mlp", Path(__file__).name, "64 and 32 differ"):
        assert part in message


def test_symbolic_sizes_of_different_names_do_not_mix() -> None:
    with Network(), pytest.raises(ShapeError, match="do not broadcast"):
        Tensor("a", (T, 4)) + Tensor("b", (Dim("B"), 4))


def test_one_name_is_one_input() -> None:
    with Network() as net:
        Tensor("x", (T, 4)) + Tensor("x")
    assert [t.name for t in net.inputs] == ["x"]
    with Network(), pytest.raises(ShapeError, match="declared with shapes"):
        Tensor("x", (T, 4)) + Tensor("x", (T, 5))


def test_a_value_of_another_network_is_refused() -> None:
    with Network():
        stranger = functional.neg(Tensor("x"))
    with Network(), pytest.raises(GraphError, match="without a name is used that no node"):
        functional.neg(stranger)


def test_a_failed_recording_does_not_poison_the_network() -> None:
    with Network() as net:
        x = Tensor("x", (T, 4))
        with pytest.raises(ShapeError):
            functional.linear(x, Tensor("w", (3, 5)))
        net.mark_output(functional.neg(x), "y")
    assert [node.op.name for node in net.nodes] == ["Elewise"]


def test_outputs_have_unique_names_and_a_producer() -> None:
    with Network() as net:
        x = Tensor("x", (T, 4))
        y = functional.neg(x)
        net.mark_output(y, "y")
        with pytest.raises(GraphError, match="no node"):
            net.mark_output(x, "z")
        with pytest.raises(GraphError, match="already"):
            net.mark_output(functional.cos(x), "y")
        with pytest.raises(GraphError, match="also"):
            net.mark_output(y, "again")


def test_two_threads_record_two_networks() -> None:
    names: dict[str, list[str | None]] = {}

    def build(name: str) -> None:
        with Network(name) as net:
            for i in range(50):
                functional.neg(Tensor(f"{name}{i}"))
            names[name] = [t.name for t in net.inputs]

    threads = [threading.Thread(target=build, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names == {name: [f"{name}{i}" for i in range(50)] for name in "ab"}


@pytest.fixture
def without_default_net() -> Iterator[None]:
    token = _current.set(None)
    yield
    _current.reset(token)


@pytest.mark.usefixtures("without_default_net")
def test_a_new_default_network_begins_when_the_last_was_built() -> None:
    first = get_default_net()
    first.mark_output(functional.neg(Tensor("x")), "y")
    engine = first.build_engine(backend="reference")
    assert get_default_net() is not first
    (y,) = engine.forward({"x": torch.ones(2)}).values()
    assert torch.equal(y, -torch.ones(2))


@pytest.mark.usefixtures("without_default_net")
def test_the_seed_example() -> None:
    """x @ weight recorded without shapes, as in the first example of the migration guide."""
    out = functional.linear(Tensor("x"), Tensor("weight"), None, False, False)
    get_default_net().mark_output(out, "out")
    engine = get_default_net().build_engine(backend="reference")
    x, weight = torch.rand(10, 20).half(), torch.rand(20, 30).half()
    result = torch.empty(10, 30).half()
    engine.forward({"x": x, "weight": weight}, {"out": result})
    assert torch.allclose(torch.matmul(x, weight), result, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("declared", [None, DataType.FLOAT])
def test_what_is_no_supported_tensor_is_refused_by_name(backend: str, declared: DataType | None) -> None:
    with Network() as net:
        net.mark_output(functional.neg(Tensor("x", (2,) if declared else None, declared)), "y")
    engine = net.build_engine(backend=backend)
    with pytest.raises(EngineError, match=r"'x'.*float64 is not supported"):
        engine.forward({"x": torch.ones(2, dtype=torch.float64)})
    with pytest.raises(EngineError, match=r"'x' must be a torch\.Tensor or a numpy array, not list"):
        engine.forward({"x": [1.0, 2.0]})  # type: ignore[dict-item]


def test_forward_checks_names_types_and_shapes_before_it_runs() -> None:
    with Network() as net:
        x, y = Tensor("x", (T, 4), DataType.FLOAT), Tensor("y", (T, 4), DataType.FLOAT)
        net.mark_output(x + y, "sum")
    engine = net.build_engine(backend="reference")
    good = torch.ones(3, 4)
    for inputs, message in (
        ({"x": good}, "missing: y"),
        ({"x": good, "y": good, "z": good}, "unknown: z"),
        ({"x": good, "y": good.half()}, "must be float32"),
        ({"x": good, "y": torch.ones(3, 5)}, r"shape \[3, 5\]"),
        ({"x": good, "y": torch.ones(2, 4)}, "T = 3"),
        ({"x": good, "y": torch.ones(4, 3).T}, "not contiguous"),
    ):
        with pytest.raises(EngineError, match=message):
            engine.forward(inputs)
    with pytest.raises(EngineError, match="unknown: other"):
        engine.forward({"x": good, "y": good}, {"other": good})
    with pytest.raises(EngineError, match="output"):
        engine.forward({"x": good, "y": good}, {"sum": torch.ones(2, 4)})


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (lambda x: x[1:3, 5:], (slice(1, 3), slice(5, None))),
        (lambda x: x[:, -4:-1], (slice(None), slice(-4, -1))),
        (lambda x: x[2:], (slice(2, None),)),
        (lambda x: x[1:100], (slice(1, 100),)),
    ],
)
def test_slices_mean_what_they_mean_in_python(index, expected) -> None:  # type: ignore[no-untyped-def]
    value = torch.arange(48.0).view(6, 8)
    for shape in ((6, 8), None):
        with Network() as net:
            net.mark_output(index(Tensor("x", shape)), "y")
        (y,) = net.build_engine(backend="reference").forward({"x": value}).values()
        assert torch.equal(y, value[expected])


def test_arithmetic_of_tensors_is_that_of_torch() -> None:
    a, b = torch.tensor([[3.0, -2.0], [5.0, 0.5]]), torch.tensor([[1.0, 4.0], [5.0, 2.0]])
    with Network() as net:
        x, y = Tensor("x"), Tensor("y")
        results = {
            "add": x + y, "sub": x - y, "mul": x * y, "scaled": x * 2.5, "left": 2 * x, "div": x / y,
            "half": x / 2, "greater": x > y, "less": x < y, "not": ~(x > y),
            "permuted": x.permute([1, 0]), "repeated": x.repeat([2, 1]), "cast": x.to(DataType.INT32),
            "flat": x.reshape(lambda s: [s[0] * s[1]]), "twice": x.reshape([4]).reshape([1, 4]),
        }  # fmt: skip
        for name, tensor in results.items():
            net.mark_output(tensor, name)
    out = net.build_engine(backend="reference").forward({"x": a, "y": b})
    expected = {
        "add": a + b, "sub": a - b, "mul": a * b, "scaled": a * 2.5, "left": 2 * a, "div": a / b, "half": a / 2,
        "greater": (a > b).to(torch.int8), "less": (a < b).to(torch.int8), "not": (a <= b).to(torch.int8),
        "permuted": a.T, "repeated": a.repeat(2, 1), "cast": a.int(), "flat": a.flatten(), "twice": a.view(1, 4),
    }  # fmt: skip
    for name, value in expected.items():
        assert torch.equal(out[name], value), name


def test_write_inplace_changes_the_input_and_later_reads_see_it() -> None:
    with Network() as net:
        state = Tensor("state", (2, 3), DataType.FLOAT)
        before = state * 1.0
        (state + Tensor("step", (2, 3), DataType.FLOAT)).write_inplace(state)
        net.mark_output(before, "before")
        net.mark_output(state * 1.0, "after")
    real = torch.zeros(2, 3)
    out = net.build_engine(backend="reference").forward({"state": real, "step": torch.ones(2, 3)})
    assert torch.equal(out["before"], torch.zeros(2, 3))
    assert torch.equal(out["after"], torch.ones(2, 3)) and torch.equal(real, torch.ones(2, 3))


def test_constants_other_than_factors_are_refused_with_a_hint() -> None:
    with Network(), pytest.raises(GraphError, match="other constants as inputs"):
        Tensor("x") + 1  # type: ignore[operator]
    with Network(), pytest.raises(GraphError, match="divided by zero"):
        Tensor("x") / 0
