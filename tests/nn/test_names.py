# SPDX-License-Identifier: Apache-2.0
"""Code that was written for ATB-Models finds its names, and what is missing is refused by name."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch
from hook_plugins import Site, failures, site

from atb_core.engine import BACKENDS
from atb_core.errors import EngineError, GraphError, PluginError
from atb_core.features.base import FeatureDecorator
from atb_core.graph import DataType, Network, Tensor
from atb_core.layers.attention.attention import Attention
from atb_core.layers.moe.moe import Moe
from atb_core.layers.norm.normalization import RmsNorm
from atb_core.nn import functional as F
from atb_core.nn.distributed import distributed as dist
from atb_core.nn.network_manager import get_default_net

__all__ = ["site"]

LOCAL = [backend for backend in BACKENDS if backend in ("cpu", "reference")]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("functional.activation", "softmax"),
        ("functional.math", "cos"),
        ("functional.index", "gather"),
        ("functional.tensor_manipulation", "split"),
        ("functional.position_embedding", "rope"),
        ("functional.attention.paged_attention", "paged_attention"),
        ("functional.attention.multi_latent_attention", "multi_latent_attention"),
        ("modules.linear", "Linear"),
        ("modules.linear.linear", "Linear"),
        ("modules.normalization", "RmsNorm"),
        ("modules.module", "ModuleList"),
        ("quantized", "quantize_per_token"),
        ("quantized.quantization", "quantize_per_token"),
        ("distributed.distributed", "AllReduceType"),
    ],
)
def test_module_paths_lead_to_the_same_names(path: str, name: str) -> None:
    folder = import_module(f"atb_core.nn.{path.split('.')[0]}")
    assert getattr(import_module(f"atb_core.nn.{path}"), name) is getattr(folder, name)


PACKAGES = {
    **dict.fromkeys(("std", "norm", "copy_blocks", "gating", "group_topk", "multi_latent_attention"), "atb-ops"),
    **dict.fromkeys(("dequantize", "quantize_per_channel", "quantize_per_token"), "atb-quant"),
}


@pytest.mark.parametrize("name", PACKAGES)
def test_a_function_of_a_package_that_is_missing_is_refused_with_its_name(name: str, site: Site) -> None:
    with pytest.raises(GraphError, match=f"nn.functional.{name} of ATB-Models needs the package {PACKAGES[name]}") as e:
        getattr(F, name)
    assert PACKAGES[name] in str(e.value.hint)
    with pytest.raises(AttributeError):
        F.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("base", "method", "place"),
    [
        (Attention, "forward_pa", "forward"),
        (Moe, "moe_route", "route"),
        (RmsNorm, "weight_loader", "Parameter.register_processor"),
        (FeatureDecorator, "generate_engine_wrapper", "variant_arguments"),
    ],
)
def test_a_method_of_atb_models_that_nothing_calls_is_refused(base: type, method: str, place: str) -> None:
    with pytest.raises(GraphError, match=f"Mine.{method} would never be called. In its place is {place}"):
        type("Mine", (base,), {method: lambda self: None})


def test_a_forward_may_call_methods_of_these_names() -> None:
    assert type("Mine", (Attention,), {"forward": lambda self: None, "forward_pa": lambda self: None})


FUNCTIONS = """
    from atb_core.plugins import hookimpl

    def {0}(x):
        return x + x

    @hookimpl
    def atb_functions():
        return [{0}]
"""


def test_a_plugin_adds_a_function_but_replaces_none_of_the_core(site: Site) -> None:
    site.install("atb-twice", FUNCTIONS.format("twice"))
    site.install("atb-linear", FUNCTIONS.format("linear"))
    with Network():
        assert F.twice(Tensor("x", (2,), DataType.FLOAT)).shape == (2,)
    assert F.linear.__module__ == "atb_core.nn.functional.linear"
    assert [failure.distribution for failure in failures()] == ["atb-linear"]


def test_a_function_of_two_plugins_is_an_error_that_names_both(site: Site) -> None:
    site.install("atb-one", FUNCTIONS.format("twice"))
    site.install("atb-two", FUNCTIONS.format("twice"))
    with pytest.raises(PluginError, match=r"the function 'twice' comes from several plugins: atb-one 1\.0 and atb-two"):
        F.twice  # noqa: B018


def test_dtypes_have_the_names_of_acl() -> None:
    from atb_core.utils.quantize import pack_type

    assert DataType.ACL_BF16 is DataType.BF16 and pack_type.DataType is DataType
    with Network():
        assert Tensor("x").to(DataType.ACL_FLOAT16).dtype is DataType.FLOAT16


@pytest.mark.parametrize("backend", LOCAL)
def test_a_value_that_is_written_in_place_may_be_marked_under_the_name_of_its_target(backend: str) -> None:
    with Network() as net:
        total = Tensor("x") + Tensor("y")
        total.write_inplace(Tensor("target"))
        net.mark_output(total, "target")
        net.mark_output(Tensor("target"))
        net.mark_output(total * 2, "twice")
    target = torch.zeros(3)
    inputs = {"x": torch.ones(3), "y": torch.full((3,), 4.0), "target": target}
    out = net.build_engine(backend=backend).forward(inputs, {"target": target})
    assert torch.equal(target, torch.full((3,), 5.0)) and torch.equal(out["twice"], target * 2)


def test_another_value_cannot_be_marked_under_the_name_of_an_input() -> None:
    with Network() as net:
        total = Tensor("x") + Tensor("y")
        total.write_inplace(Tensor("target"))
        for name in ("target", "x"):
            with pytest.raises(GraphError, match="already has an input or output called"):
                net.mark_output(total * 2, name)


def test_the_default_network_takes_one_argument_and_keys_with_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    with Network():
        y = Tensor("x") + Tensor("x")
        y.name = "y"
        get_default_net().mark_output(y)
        engine = get_default_net().build_engine(del_fpass_keys=["AddRmsNormPass"])
    assert torch.equal(engine.forward({"x": torch.ones(2)})["y"], torch.full((2,), 2.0))


def test_reductions_are_named_by_text_or_member() -> None:
    x = Tensor("x")
    assert dist.all_reduce(send_tensor=x, all_reduce_type=dist.AllReduceType.MAX) is x
    assert dist.all_reduce(x, all_reduce_type="MIN") is x
    with pytest.raises(EngineError, match="known: SUM, PROD, MAX, MIN"):
        dist.all_reduce(x, all_reduce_type="MEAN")


MISUSE = {
    "a list of tensors": lambda x: F.activation([x], F.ActType.SWIGLU),
    "no tensor": lambda x: F.rms_norm(None, x, 1e-6),
    "text as an epsilon": lambda x: F.rms_norm(x, x, "small"),
    "an epsilon without end": lambda x: F.rms_norm(x, x, float("inf")),
    "an activation that is none": lambda x: F.activation(x, "GELLU"),
    "text as dimensions": lambda x: F.softmax(x, "last"),
    "no dimensions": lambda x: F.sum_(x, None),
    "a fraction as a dimension": lambda x: F.gather(x, 0.5, x),
    "no sizes": lambda x: F.split(x, None),
    "a size of text": lambda x: F.split(x, ["a", "b"]),
    "one tensor to join": lambda x: F.cat(x),
    "one number to permute": lambda x: x.permute(1.5),
    "a text as repeats": lambda x: x.repeat("twice"),
    "a text as a shape": lambda x: x.reshape("flat"),
    "a size below -1": lambda x: x.reshape([-3]),
    "a function that fails": lambda x: x.reshape(lambda s: s[9]),
    "a text as a bound": lambda x: x["a":],
    "a number as an index": lambda x: x[1],
    "a type of torch": lambda x: x.to(torch.float16),
    "a type that is none": lambda x: Tensor("y", None, "float17"),
    "a shape that is none": lambda x: Tensor("y", 5),
    "a head count of text": lambda x: F.paged_attention(x, x, x, kv_lens=x, head_num="4"),
    "an output that is text": lambda x: get_default_net().mark_output("y"),
    "a number too long": lambda x: F.sort(x, 10**9000),
    "a size too long": lambda x: Tensor("y", (-(10**9000),)),
}


@pytest.mark.parametrize("call", MISUSE.values(), ids=MISUSE.keys())
def test_wrong_kinds_are_errors_of_ours(call) -> None:  # type: ignore[no-untyped-def]
    with Network(), pytest.raises(GraphError):
        call(Tensor("x", (2, 4), DataType.FLOAT))
