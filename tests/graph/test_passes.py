# SPDX-License-Identifier: Apache-2.0
"""Passes: each fusion equals its unfused form, and keeps away where it would change something."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from atb_core.engine.base import Engine
from atb_core.errors import GraphError, VerifyError
from atb_core.graph import DataType, Dim, Network, Tensor, passes, record
from atb_core.graph.dim import Shape
from atb_core.graph.network import Node
from atb_core.graph.op import Op
from atb_core.graph.ops import Elewise
from atb_core.graph.passes import fusion_names, run_passes
from atb_core.graph.passes.caches import pack_caches
from atb_core.graph.specialize import specialize
from atb_core.graph.verify import verify
from atb_core.nn import functional as F
from atb_core.nn.functional import ActType

T = Dim("T")


def tensor(name: str, *shape: int | Dim) -> Tensor:
    return Tensor(name, shape, DataType.FLOAT)


def weight(net: Network, name: str, *shape: int) -> Tensor:
    net.weights_keys.add(name)
    return tensor(name, *shape)


def ops(net: Network) -> list[str]:
    return [node.op.name for node in net.nodes]


def residual_norm(net: Network) -> None:
    a, b = tensor("a", T, 32), tensor("b", T, 32)
    total = a + b
    net.mark_output(F.rms_norm(total, weight(net, "w", 32), 1e-6), "y")
    net.mark_output(F.neg(total), "z")


def swiglu(net: Network) -> None:
    gate, up = F.split(tensor("x", T, 32), 2, -1)
    net.mark_output(up * F.activation(gate, ActType.SWISH), "y")


def gated_projection(net: Network) -> None:
    for bias in (weight(net, "b", 48), None):
        packed = F.linear(tensor("x" if bias else "z", T, 32), weight(net, f"w{bias is None}", 48, 32), bias)
        net.mark_output(F.activation(packed, ActType.SWIGLU), f"y{bias is None}")


def packed_projection(net: Network) -> None:
    parts = F.split(F.linear(tensor("x", T, 32), weight(net, "w", 24, 32), weight(net, "b", 24)), [8, 12, 4], -1)
    for i, part in enumerate(parts):
        net.mark_output(part, f"y{i}")


def separate_projections(net: Network) -> None:
    x = tensor("x", T, 32)
    for i in range(3):
        net.mark_output(F.linear(x, weight(net, f"w{i}", 8 + i, 32)), f"y{i}")


FUSIONS = {
    "AddRmsNorm": (residual_norm, ["AddRmsNorm", "Elewise"]),
    "SwigluWeightPack": (swiglu, ["Activation"]),
    "LinearSwiglu": (gated_projection, ["LinearSwiglu", "LinearSwiglu"]),
    "SplitLinear": (packed_projection, ["SplitLinear"]),
    "MergedLinear": (separate_projections, ["MergedLinear"]),
}


def test_every_fusion_has_its_case_here() -> None:
    of_plugins = {each.value.name for each in passes.FUSIONS.all()}
    assert set(FUSIONS) == set(fusion_names()) - of_plugins


@pytest.mark.parametrize("name", FUSIONS)
def test_a_fusion_equals_its_unfused_form(name: str) -> None:
    write, expected = FUSIONS[name]
    with Network() as net:
        write(net)
    fused, plain = run_passes(net, "reference"), run_passes(net, "reference", ["All"])
    assert ops(fused) == expected
    assert ops(plain) == ops(net)
    generator = torch.Generator().manual_seed(0)
    values = {
        str(t.name): torch.randn([5 if isinstance(s, Dim) else s for s in t.shape or ()], generator=generator)
        for t in net.inputs
    }
    results = []
    for variant in (fused, plain):
        engine = variant.build_engine(["All"], backend="reference")
        engine.set_weights({key: values[key] for key in net.weights_keys})
        results.append(engine.forward({k: v for k, v in values.items() if k not in net.weights_keys}))
    for key, value in results[0].items():
        torch.testing.assert_close(value, results[1][key], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", FUSIONS)
def test_a_fusion_can_be_left_out_by_name(name: str) -> None:
    with Network() as net:
        FUSIONS[name][0](net)
    assert ops(run_passes(net, "reference", [name])) == ops(net)


def test_an_unknown_fusion_name_is_refused() -> None:
    with Network() as net:
        residual_norm(net)
    with pytest.raises(GraphError, match="no fusion pass is called AddNorm"):
        run_passes(net, "reference", ["AddNorm"])


def keeps_away(write: Callable[[Network], None]) -> None:
    with Network() as net:
        write(net)
    assert ops(run_passes(net, "reference")) == ops(net)


def test_a_bias_that_is_broadcast_is_no_residual() -> None:
    def write(net: Network) -> None:
        net.mark_output(F.rms_norm(tensor("a", T, 32) + tensor("bias", 32), weight(net, "w", 32), 1e-6), "y")

    keeps_away(write)


def test_an_inner_value_that_is_read_elsewhere_prevents_the_fusion() -> None:
    def write(net: Network) -> None:
        gate, up = F.split(tensor("x", T, 32), 2, -1)
        silu = F.activation(gate, ActType.SWISH)
        net.mark_output(silu * up, "y")
        net.mark_output(F.neg(silu), "z")

    keeps_away(write)


def test_memory_that_is_written_in_place_is_left_alone() -> None:
    def write(net: Network) -> None:
        state = tensor("state", 4, 32)
        total = state + tensor("b", 4, 32)
        F.neg(total).write_inplace(state)
        net.mark_output(F.rms_norm(total, weight(net, "w", 32), 1e-6), "y")

    keeps_away(write)


def test_matching_follows_dataflow_not_neighbourhood() -> None:
    with Network() as net:
        a, b = tensor("a", T, 32), tensor("b", T, 32)
        total = a + b
        net.mark_output(F.cos(a), "between")
        net.mark_output(F.rms_norm(total, weight(net, "w", 32), 1e-6), "y")
    assert ops(run_passes(net, "reference")) == ["Elewise", "AddRmsNorm"]


def test_dead_code_goes_and_writes_stay() -> None:
    with Network() as net:
        x = tensor("x", 2, 4)
        F.cos(F.neg(x))
        F.sin(x).write_inplace(tensor("state", 2, 4))
        net.mark_output(F.neg(x), "y")
    assert ops(run_passes(net, "reference")) == ["Elewise", "Assign", "Elewise"]


def test_equal_computations_are_shared_unless_a_write_lies_between() -> None:
    with Network() as net:
        state = tensor("state", 2, 4)
        first, second = F.neg(state), F.neg(state)
        first.write_inplace(state)
        net.mark_output((first + second) + F.neg(state), "y")
    assert ops(run_passes(net, "reference")).count("Elewise") == 4


def test_views_of_views_become_one_view() -> None:
    with Network() as net:
        x = tensor("x", T, 32)
        net.mark_output(F.neg(x.reshape([-1, 4, 8]).reshape([-1, 8, 4])), "y")
        net.mark_output(F.cos(x.reshape([-1, 32])), "z")
    assert ops(run_passes(net, "reference")) == ["Reshape", "Elewise", "Elewise"]


def test_verify_finds_what_a_broken_pass_does() -> None:
    with Network() as net:
        state = tensor("state", 2, 4)
        read = F.neg(state)
        read.write_inplace(state)
        net.mark_output(F.cos(read), "y")
    reads, assign, last = net.nodes

    def rebuilt(*nodes: Node) -> Network:
        broken = Network("broken")
        for node in nodes:
            broken.add_copy(node)
        broken.outputs = list(net.outputs)
        return broken

    verify(rebuilt(reads, assign, last))
    with pytest.raises(GraphError, match="without a name is used"):
        rebuilt(last)
    late = Node(Elewise("ELEWISE_NEG"), (state,), (Tensor(None, (2, 4), DataType.FLOAT),), versions=(0,))  # type: ignore[arg-type]
    with pytest.raises(VerifyError, match="after 1 in-place writes"):
        verify(rebuilt(reads, assign, last, late))
    wrong = Node(Elewise("ELEWISE_NEG"), (read,), (Tensor(None, (2, 5), DataType.FLOAT),), versions=(0,))  # type: ignore[arg-type]
    with pytest.raises(VerifyError, match="but its output is"):
        verify(rebuilt(reads, assign, last, wrong))
    with pytest.raises(VerifyError, match="already exists"):
        verify(rebuilt(reads, reads, assign, last))


def test_rules_run_once_for_equal_nodes_and_every_node_is_verified() -> None:
    calls: list[tuple[Shape, ...]] = []

    @dataclass(frozen=True)
    class Halve(Op, namespace="test_passes"):
        def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
            calls.append(shapes)
            return shapes

    with Network("net") as net:
        values = [tensor("x", T, 32)]
        for _ in range(5):
            values += record(Halve(), values[-1:])
        net.mark_output(values[-1], "y")
    run_passes(net, "reference")
    assert calls == [((T, 32),)]
    values[3].shape = (T, 16)
    with pytest.raises(VerifyError, match=r"Halve .* infers .*\[T, 32\], but its output is .*\[T, 16\]"):
        verify(net)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_fusions_that_shapes_decide_run_when_real_tensors_bring_the_shapes(backend: str) -> None:
    def build(*leave_out: str) -> Engine:
        with Network("undeclared") as net:
            total = Tensor("a") + Tensor("b")
            normed = F.rms_norm(total, Tensor("w"), 1e-6)
            gate, up = F.split(normed, 2, -1)
            net.mark_output(F.activation(gate, F.ActType.SWISH) * up, "y")
            net.mark_output(total, "total")
        return net.build_engine(list(leave_out), backend=backend)

    values = {"a": torch.randn(4, 16), "b": torch.randn(4, 16), "w": torch.randn(16)}
    specs = {name: (tuple(value.shape), DataType.FLOAT) for name, value in values.items()}
    engine = build()
    kinds = [type(node.op).__name__ for node in specialize(engine.network, specs)]
    assert kinds == ["AddRmsNorm", "Activation"]
    expected = build("All").forward(values)
    for name, value in engine.forward(values).items():
        torch.testing.assert_close(value, expected[name])
    # A bias is added by broadcasting, which AddRmsNorm cannot do.
    biased = {**values, "b": torch.randn(16)}
    assert engine.forward(biased)["total"].equal(values["a"] + biased["b"])


def cached(net: Network, read: Callable[[Tensor], Tensor]) -> None:
    caches = [tensor(name, 4, 16, 2, 8) for name in ("k_cache", "v_cache")]
    q, k, v = (tensor(name, T, heads, 8) for name, heads in (("q", 4), ("k", 2), ("v", 2)))
    F.reshape_and_cache(k, v, *caches, Tensor("slots", (T,), DataType.INT32))
    tables, lengths = Tensor("tables", (T, 3), DataType.INT32), Tensor("lengths", (T,), DataType.INT32)
    shape = {"head_num": 4, "kv_head_num": 2, "block_table": tables, "kv_lens": lengths}
    net.mark_output(F.paged_attention(q, k_cache=caches[0], v_cache=caches[1], **shape), "y")
    net.mark_output(read(caches[0]), "z")


def test_a_packed_cache_is_one_that_only_attention_reads() -> None:
    with Network("n") as net:
        cached(net, lambda cache: tensor("x", T, 8) * 2.0)
    packed = [getattr(node.op, "packed_kv", None) for node in pack_caches(net, ["k_cache", "v_cache"]).nodes]
    assert packed == [True, True, None]
    with Network("n") as net:
        cached(net, lambda cache: cache * 2.0)
    with pytest.raises(GraphError, match=r"Elewise.* uses 'k_cache', whose elements .*packed_kv_cache = False"):
        pack_caches(net, ["k_cache", "v_cache"])
