# SPDX-License-Identifier: Apache-2.0
"""Code that was written for ATB-Models finds its names, and what is missing is refused by name."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch

from atb_core.engine import BACKENDS
from atb_core.errors import EngineError, GraphError
from atb_core.graph import DataType, Network, Tensor
from atb_core.nn import functional as F
from atb_core.nn.distributed import distributed as dist
from atb_core.nn.network_manager import get_default_net

LOCAL = [backend for backend in BACKENDS if backend in ("cpu", "reference")]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("functional.math", "cos"),
        ("functional.index", "gather"),
        ("functional.tensor_manipulation", "split"),
        ("functional.position_embedding", "rope"),
        ("functional.attention.paged_attention", "paged_attention"),
        ("modules.linear", "Linear"),
        ("modules.module", "ModuleList"),
        ("distributed.distributed", "AllReduceType"),
    ],
)
def test_module_paths_lead_to_the_same_names(path: str, name: str) -> None:
    folder = import_module(f"atb_core.nn.{path.split('.')[0]}")
    assert getattr(import_module(f"atb_core.nn.{path}"), name) is getattr(folder, name)


@pytest.mark.parametrize("name", ["std", "norm", "copy_blocks", "gating", "group_topk", "multi_latent_attention"])
def test_a_function_that_is_missing_is_refused_by_name(name: str) -> None:
    with pytest.raises(GraphError, match=f"nn.functional.{name} of ATB-Models is not in this version"):
        getattr(F, name)
    with pytest.raises(AttributeError):
        F.nothing  # noqa: B018


def test_dtypes_have_the_names_of_acl() -> None:
    assert DataType.ACL_BF16 is DataType.BF16 and Tensor("x").to is not None
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
