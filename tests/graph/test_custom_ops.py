# SPDX-License-Identifier: Apache-2.0
"""Ops and fusions of plugins run on both engines, or are refused by name before anything runs."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hook_plugins import Site, failures, site

from atb_core.errors import GraphError, PluginError
from atb_core.graph import DataType, Dim, Network, Tensor, record, registered_ops
from atb_core.graph.custom_ops import find_op
from atb_core.graph.op import Op
from atb_core.graph.passes import fusion_names, pipeline, run_passes
from atb_core.nn import functional as F
from atb_testing.serialize import load_network, save_network

__all__ = ["site"]

# An op of a plugin: x * scale + shift, on the reference engine by its reference.
OP = """
from dataclasses import dataclass

import atb_core.engine.kernels

from atb_core.graph import Op, Tensor, record
from atb_core.graph.ops import Elewise, ElewiseType
from atb_core.graph.passes import Fusion, Pass
from atb_core.plugins import OpContribution, hookimpl


@dataclass(frozen=True)
class ScaleAdd(Op, namespace="{0}"):
    scale: float
    input_names = ("x", "shift")

    def infer_shapes(self, *shapes):
        return (shapes[0],)

    def reference(self, x, shift):
        return ((x.float() * self.scale + shift.float()).to(x.dtype),)
"""
EXPANDED = """
@hookimpl
def atb_ops():
    return [OpContribution(ScaleAdd, expand=lambda op, x, shift: x * op.scale + shift)]
"""
KERNEL = """
from atb_core.engine.kernels import CpuKernel


def scale_add(call):
    x, shift, y = call.inputs[0].array(), call.inputs[1].array(), call.outputs[0].array()
    part = call.share(len(x))
    y[part] = x[part] * call.attributes["scale"] + shift[part]


@hookimpl
def atb_ops():
    return [OpContribution(ScaleAdd, kernels={"cpu": CpuKernel.from_python(scale_add)})]
"""
BARE = """
@hookimpl
def atb_ops():
    return [OpContribution(ScaleAdd)]
"""
FUSION = """
@hookimpl
def atb_fusion_passes():
    def pattern(x, shift, *, factor):
        return record(Elewise(ElewiseType.MULS, factor), (x,))[0] + shift

    def replacement(x, shift, *, factor):
        return record(ScaleAdd(factor), (x, shift))[0]

    return [Pass("ScaleAdd", Fusion(pattern, replacement, lambda match: match.attributes["factor"] > 1))]
"""
# Two negations are none: a fusion that needs no op of its own.
NEGATION = """
from atb_core.graph.passes import Fusion, Pass
from atb_core.nn.functional import neg
from atb_core.plugins import hookimpl


@hookimpl
def atb_fusion_passes():
    return [Pass("{0}", Fusion(lambda x: neg(neg(x)), lambda x: x + x))]
"""


def ops(network: Network) -> list[str]:
    return [node.op.name for node in network.nodes]


def tensor(name: str) -> Tensor:
    return Tensor(name, (Dim("T"), 4), DataType.FLOAT)


def recorded(write: Callable[[], Tensor]) -> Network:
    with Network("custom") as network:
        network.mark_output(write(), "y")
    return network


def scaled(module: ModuleType, factor: float = 3.0) -> Network:
    return recorded(lambda: F.neg(record(module.ScaleAdd(factor), (tensor("x"), tensor("shift")))[0]))


def run(network: Network, backend: str, **options: list[str]) -> torch.Tensor:
    inputs = {t.name: torch.arange(8.0).reshape(2, 4) + i for i, t in enumerate(network.inputs) if t.name}
    return network.build_engine(backend=backend, **options).forward(inputs)["y"]


def expected(factor: float = 3.0) -> torch.Tensor:
    x = torch.arange(8.0).reshape(2, 4)
    return -(x * factor + x + 1)


def plugin(site: Site, name: str, *parts: str) -> ModuleType:
    module = site.install(name, "".join(parts).replace("{0}", name.replace("-", "_")))
    return importlib.import_module(module)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_an_op_with_an_expansion_runs_on_every_engine(site: Site, backend: str) -> None:
    network = scaled(plugin(site, "atb-scale", OP, EXPANDED))
    assert ops(network) == ["atb_scale.ScaleAdd", "Elewise"]
    assert torch.equal(run(network, backend), expected())


def test_an_op_is_expanded_only_for_backends_without_a_kernel(site: Site) -> None:
    network = scaled(plugin(site, "atb-scale", OP, EXPANDED))
    assert ops(run_passes(network, "reference")) == ["atb_scale.ScaleAdd", "Elewise"]
    assert ops(run_passes(network, "cpu")) == ["Elewise", "Elewise", "Elewise"]
    assert ops(network) == ["atb_scale.ScaleAdd", "Elewise"]


def test_a_kernel_that_comes_with_an_op_runs_it_and_nothing_is_expanded(site: Site) -> None:
    network = scaled(plugin(site, "atb-fast", OP, KERNEL))
    assert ops(run_passes(network, "cpu")) == ["atb_fast.ScaleAdd", "Elewise"]
    assert torch.equal(run(network, "cpu"), expected())


def test_an_expansion_keeps_the_authors_place_and_unknown_shapes(site: Site) -> None:
    module = plugin(site, "atb-scale", OP, EXPANDED)
    network = recorded(lambda: record(module.ScaleAdd(2.0), (Tensor("x"), Tensor("shift")))[0])
    places = {node.source for node in run_passes(network, "cpu").nodes}
    assert places == {network.nodes[0].source}
    assert torch.equal(run(network, "cpu"), -expected(2.0))


def test_an_op_that_a_backend_cannot_run_is_refused_with_its_owner_before_anything_runs(site: Site) -> None:
    network = scaled(plugin(site, "atb-bare", OP, BARE))
    assert torch.equal(run(network, "reference"), expected())
    with pytest.raises(GraphError, match=r"'cpu' cannot run atb_bare\.ScaleAdd .*the plugin atb-bare 1\.0 provides"):
        network.build_engine(backend="cpu")


def test_an_op_that_no_hook_announces_is_refused_with_its_module(site: Site) -> None:
    silent = "\n@hookimpl\ndef atb_features():\n    return []\n"
    network = scaled(plugin(site, "atb-silent", OP, silent))
    with pytest.raises(GraphError, match="the module atb_silent has no atb_ops hook for it"):
        network.build_engine(backend="cpu")


WRONG = {
    "raises": ("1 / 0", "failed for the node in .*ZeroDivisionError"),
    "returns no tensor": ("None", "must return 1 tensors, not"),
    "returns an input": ("x", "which it did not compute"),
    "gives another type": ("x.to(DataType.BF16)", "but the op's rules give"),
    "needs itself": ("record(op, (x, shift))[0]", "expanded again and again"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_expansion_names_the_plugin(site: Site, case: str) -> None:
    body, message = WRONG[case]
    hook = f"""
from atb_core.graph import DataType
@hookimpl
def atb_ops():
    return [OpContribution(ScaleAdd, expand=lambda op, x, shift: {body})]
"""
    network = scaled(plugin(site, "atb-wrong", OP, hook))
    with pytest.raises(PluginError, match=rf"atb_wrong\.ScaleAdd of the plugin atb-wrong 1\.0.*{message}"):
        network.build_engine(backend="cpu")


REFUSED = {
    "an op of core": ("OpContribution(__import__('atb_core.graph.ops').graph.ops.Linear)", "Linear belongs to core"),
    "no op": ("OpContribution(int)", "<class 'int'> is not a subclass of Op"),
    "no contribution": ("ScaleAdd", "is no OpContribution"),
    "no kernel": ("OpContribution(ScaleAdd, kernels={'cpu': 1})", "ScaleAdd for 'cpu' is 1, not a kernel of a class"),
    "a kernel for another backend": (
        "OpContribution(ScaleAdd, kernels={'tpu': atb_core.engine.kernels.CpuKernel('a', 'b')})",
        "ScaleAdd for 'tpu' is a CpuKernel, which the backend 'cpu' takes",
    ),
    "an expansion that is no function": ("OpContribution(ScaleAdd, expand=3)", "is 3, which is not a function"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_contribution_that_is_none_is_left_out_with_the_reason(site: Site, case: str) -> None:
    item, message = REFUSED[case]
    network = scaled(plugin(site, "atb-odd", OP, f"\n@hookimpl\ndef atb_ops():\n    return [{item}]\n"))
    with pytest.raises(GraphError, match="has no atb_ops hook for it"):
        network.build_engine(backend="cpu")
    (record_,) = failures()
    assert message in record_.reason


def test_ops_from_outside_need_a_namespace_and_a_name_of_their_own(site: Site) -> None:
    with pytest.raises(GraphError, match='Write class Linear\\(Op, namespace="'):
        type("Linear", (Op,), {})
    plugin(site, "atb-scale", OP, EXPANDED)
    with pytest.raises(GraphError, match=r"'atb_scale\.ScaleAdd' of .* is taken by atb_scale\.ScaleAdd"):
        type("ScaleAdd", (Op,), {}, namespace="atb_scale")
    assert registered_ops()["Linear"].__module__ == "atb_core.graph.ops.linear"


def test_a_saved_network_finds_the_op_of_a_plugin_that_is_not_imported_yet(site: Site, tmp_path: Path) -> None:
    module = plugin(site, "atb-scale", OP, EXPANDED)
    save_network(scaled(module), tmp_path / "net.atbnet")
    loaded = load_network(tmp_path / "net.atbnet")
    assert torch.equal(run(loaded, "cpu"), expected())


def test_a_saved_network_says_which_package_an_unknown_op_needs(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "net.atbnet"
    save_network(scaled(plugin(site, "atb-scale", OP, EXPANDED)), file)
    file.write_text(file.read_text().replace("ScaleAdd", "ScaleMul"), encoding="utf-8")
    with pytest.raises(GraphError, match=r"'atb_scale\.ScaleMul' comes from atb-scale 1\.0, .*pip install atb-scale"):
        load_network(file)
    file.write_text(file.read_text().replace("atb-scale 1.0", "x; rm -rf /"), encoding="utf-8")
    with pytest.raises(GraphError, match="there is no op called") as error:
        load_network(file)
    assert "rm -rf" not in str(error.value)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_fusion_of_a_plugin_fires_where_its_predicate_holds(site: Site, backend: str) -> None:
    site.install("atb-scale", (OP + BARE + FUSION).format("atb_scale"))
    wanted = recorded(lambda: tensor("x") * 3.0 + tensor("shift"))
    other = recorded(lambda: tensor("x") * 0.5 + tensor("shift"))
    assert ops(run_passes(wanted, "reference")) == ["atb_scale.ScaleAdd"]
    assert ops(run_passes(other, "reference")) == ["Elewise", "Elewise"]
    assert torch.equal(run(other, backend), -expected(0.5))


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_fusion_can_be_left_out_by_name(site: Site, backend: str) -> None:
    site.install("atb-neg", NEGATION.format("Double"))
    network = recorded(lambda: F.neg(F.neg(tensor("x"))))
    x = torch.arange(8.0).reshape(2, 4)
    assert fusion_names()[-2:] == ("Double", "LinearSwiglu")
    # The replacement is a wrong one, so that the result shows whether it ran.
    assert torch.equal(run(network, backend), x + x)
    assert torch.equal(run(network, backend, del_fpass_keys=["Double"]), x)
    assert torch.equal(run(network, backend, del_fpass_keys=["All"]), x)


def test_a_fusion_into_an_op_runs_only_for_backends_with_a_kernel_for_it(site: Site) -> None:
    source = OP + EXPANDED + FUSION.replace("> 1))]", '> 1), makes="atb_scale.ScaleAdd")]')
    site.install("atb-scale", source.format("atb_scale"))
    assert "ScaleAdd" in [step.name for step in pipeline("reference")]
    assert "ScaleAdd" not in [step.name for step in pipeline("cpu")]


@pytest.mark.parametrize("name", ["AddRmsNorm", "All", "RemoveDeadCode"])
def test_a_fusion_with_a_name_of_core_is_an_error_that_names_both(site: Site, name: str) -> None:
    site.install("atb-neg", NEGATION.format(name))
    with pytest.raises(PluginError, match=rf"'{name}': one of atb-core and one of atb-neg 1\.0"):
        fusion_names()


def test_two_fusions_of_one_name_are_an_error_that_names_both(site: Site) -> None:
    site.install("atb-one", NEGATION.format("Same"))
    site.install("atb-two", NEGATION.format("Same"))
    with pytest.raises(PluginError, match=r"one of atb-one 1\.0 and one of atb-two 1\.0.*ATB_NO_PLUGINS=atb-two"):
        fusion_names()


BAD_PASSES = {
    "raises": ("lambda network: 1 / 0", "ZeroDivisionError"),
    "returns something else": ("lambda network: None", "returned None, not a Network"),
    "makes an illegal network": ("broken", "is illegal after pass 'Bad'"),
}


@pytest.mark.parametrize("case", BAD_PASSES)
def test_a_pass_that_fails_leaves_the_network_as_it_was(site: Site, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function, message = BAD_PASSES[case]
    source = f"""
from atb_core.graph import Network
from atb_core.graph.passes import Pass
from atb_core.plugins import hookimpl

def broken(network):
    result = Network("broken")
    result.nodes = network.nodes[1:]
    result.outputs = network.outputs
    return result

@hookimpl
def atb_fusion_passes():
    return [Pass("Bad", {function})]
"""
    site.install("atb-bad", source)
    network = recorded(lambda: F.neg(F.neg(tensor("x"))))
    assert ops(run_passes(network, "reference")) == ["Elewise", "Elewise"]
    assert ops(run_passes(network, "reference")) == ["Elewise", "Elewise"]
    (record_,) = failures()
    assert message in record_.reason
    monkeypatch.setenv("ATB_STRICT", "1")
    with pytest.raises(PluginError, match="'Bad' of the plugin atb-bad"):
        run_passes(network, "reference")


def test_an_unknown_op_with_a_namespace_is_looked_for_among_the_plugins(site: Site) -> None:
    site.install("atb-scale", (OP + EXPANDED).format("atb_scale2"))
    assert find_op("atb_scale2.ScaleAdd").__module__ == "atb_scale"
    with pytest.raises(GraphError, match=r"no op called 'atb_scale2\.Nothing'"):
        find_op("atb_scale2.Nothing")
