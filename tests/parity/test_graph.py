# SPDX-License-Identifier: Apache-2.0
"""Networks, engines, modules, layers, fusions and groups are used with ATB-Models' names and keywords, and run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_model import small_config

from atb_core import nn
from atb_core.engine import BACKENDS
from atb_core.graph import DataType, Network, Tensor
from atb_core.graph.passes import fusion_names
from atb_core.layers import InferenceMode
from atb_core.layers.attention.attention import Attention
from atb_core.layers.embedding.word_embedding import ParallelEmbedding
from atb_core.layers.linear.linear import (
    BaseLinear,
    ColumnParallelLinear,
    MergedColumnParallelLinear,
    ReplicatedLinear,
    RowParallelLinear,
)
from atb_core.layers.mlp.mlp import Mlp
from atb_core.layers.moe.fused_experts import FusedExperts
from atb_core.layers.moe.moe import Moe
from atb_core.layers.norm.normalization import RmsNorm
from atb_core.models.base.moe_config import MoeConfig
from atb_core.models.runtime.weight_loading import collect_parameters
from atb_core.nn import functional as F
from atb_core.nn import quantized as Q
from atb_core.nn.distributed import distributed as dist
from atb_core.nn.distributed.mapping import Mapping
from atb_core.nn.network_manager import get_default_net
from atb_core.nn.parameter import Parameter

LOCAL = [backend for backend in BACKENDS if backend in ("cpu", "reference")]
FLOAT, INT8, INT32 = DataType.FLOAT, DataType.INT8, DataType.INT32


class Scaled(nn.Module):
    """A module as code for ATB-Models writes it."""

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self.weight = Parameter(prefix=prefix, suffix="weight", enable_auto_transpose=False, enable_nd_nz=False)
        self.weight.register_processor(lambda weight: weight + 1)
        self.parts = nn.ModuleList([nn.modules.RmsNorm("norm", 1e-6)])
        self.named = nn.ModuleDict({"norm": self.parts[0]})
        self.add_aliases({"scale": "weight"})

    def forward(self, x: Tensor) -> Tensor:
        assert self.getattr_by_alias("scale") is self.weight and self.weight.name == "scaled.weight"
        return self.named["norm"](x) * self.weight.get_tensor()  # type: ignore[no-any-return]


@pytest.mark.parametrize("backend", LOCAL)
def test_a_module_is_recorded_into_the_default_network_built_and_run(backend: str) -> None:
    with Network("default_network"):
        module = Scaled("scaled")
        out = module(Tensor("x"))
        get_default_net().cut()
        out.name = "y"
        get_default_net().mark_output(out)
        cache = Tensor("cache", (4, 1, 1, 8), FLOAT)
        get_default_net().mark_output(cache * 2.0, "twice")
        assert "RmsNorm" in str(get_default_net())
        engine = get_default_net().build_engine(del_fpass_keys=["All"], backend=backend)
    weights = {"norm.weight": torch.ones(8), "scaled.weight": torch.as_tensor(module.weight.process(torch.ones(8)))}
    engine.set_weights(weights)
    held = torch.ones(4, 1, 1, 8)
    engine.set_kv_caches({"cache": held})
    x, target = torch.randn(2, 8), torch.empty(2, 8)
    engine.forward({"x": x}, {"y": target}, {})
    torch.testing.assert_close(target, torch.nn.functional.rms_norm(x, (8,), eps=1e-6) * 2)
    assert "Elewise" in str(engine)


@pytest.mark.parametrize("key", ["AddRmsNormPass", "SwigluWeightPackPass"])
@pytest.mark.parametrize("backend", LOCAL)
def test_fusions_run_for_tensors_without_shapes_and_keep_the_values(key: str, backend: str) -> None:
    def record() -> Network:
        with Network() as net:
            if key == "AddRmsNormPass":
                total = Tensor("a") + Tensor("b")
                net.mark_output(F.rms_norm(total, Tensor("w"), 1e-6), "y")
                net.mark_output(total, "total")
            else:
                gate, up = F.split(Tensor("a"), 2, -1)
                net.mark_output(F.activation(gate, F.ActType.SWISH) * up, "y")
        return net

    inputs = {"a": torch.randn(4, 8), "b": torch.randn(4, 8), "w": torch.randn(8)}
    used = inputs if key == "AddRmsNormPass" else {"a": inputs["a"]}
    fused = record().build_engine(backend=backend).forward(used)
    plain = record().build_engine(del_fpass_keys=[key], backend=backend).forward(used)
    assert key.removesuffix("Pass") in fusion_names()
    for name, value in plain.items():
        torch.testing.assert_close(fused[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["by tensor with bias", "by token", "by token with bias"])
@pytest.mark.parametrize("backend", LOCAL)
def test_products_of_integers_and_their_scales_become_one_node(kind: str, backend: str) -> None:
    with Network() as net:
        sums = F.linear(Tensor("x", (3, 32), INT8), Tensor("w", (4, 32), INT8))
        token = Tensor("t", (3,), FLOAT) if "token" in kind else None
        bias = Tensor("b", (4,), INT32) if kind == "by tensor with bias" else None
        y = Q.dequantize(sums, Tensor("d", (4,), FLOAT), output_dtype=FLOAT, activation_scale=token, bias=bias)
        net.mark_output(y + Tensor("f", (4,), FLOAT) if kind == "by token with bias" else y, "y")
    engine = net.build_engine(backend=backend)
    # A bias behind the scales of rows stays an addition.
    ops = [node.op.name for node in engine.network.nodes if node.op.name != "Reshape"]
    assert ops == ["QuantLinear", "Elewise"][: 2 if kind == "by token with bias" else 1]
    integers = torch.randint(-128, 128, (3, 32), dtype=torch.int8), torch.randint(-128, 128, (4, 32), dtype=torch.int8)
    given = {"x": integers[0], "w": integers[1], "d": torch.rand(4)}
    given |= {"t": torch.rand(3)} if "token" in kind else {"b": torch.arange(4, dtype=torch.int32)}
    given |= {"f": torch.rand(4)} if kind == "by token with bias" else {}
    expected = (integers[0].int() @ integers[1].int().T + given.get("b", 0)) * given["d"]
    expected = expected * given["t"][:, None] + given.get("f", 0.0) if "token" in kind else expected
    torch.testing.assert_close(engine.forward(given)["y"], expected, rtol=1e-6, atol=1e-3)


def run_layer(layer: Any, call: Callable[[], Tensor], backend: str, **inputs: torch.Tensor) -> torch.Tensor:
    """The result of a layer with weights of ones."""
    with Network() as net:
        net.mark_output(call(), "y")
        engine = net.build_engine(backend=backend)
    engine.set_weights({p.name: torch.ones(p.declared_shape) for p in collect_parameters([layer])})  # type: ignore[arg-type]
    found: torch.Tensor = engine.forward(inputs)["y"]
    return found


@pytest.mark.parametrize("cls", [BaseLinear, ColumnParallelLinear, RowParallelLinear, ReplicatedLinear])
@pytest.mark.parametrize("backend", LOCAL)
def test_linear_layers_take_the_mode_of_a_step(cls: type[BaseLinear], backend: str) -> None:
    layer = cls(small_config().hf_config, None, prefixes=["l"], bias=True, in_features=8, out_features=4)
    call = lambda: layer.forward(input_tensor=Tensor("x"), inference_mode=InferenceMode.PREFILL)  # noqa: E731
    x = torch.randn(3, 8)
    torch.testing.assert_close(run_layer(layer, call, backend, x=x), x.sum(1, keepdim=True).expand(3, 4) + 1)


@pytest.mark.parametrize("backend", LOCAL)
def test_packed_layers_give_a_list_with_an_output_for_each(backend: str) -> None:
    layer = MergedColumnParallelLinear(
        small_config().hf_config, None, prefixes=["q", "k"], in_features=8, out_features=[4, 2]
    )
    assert len(layer) == 2

    def call() -> Tensor:
        q, k = layer(Tensor("x"), inference_mode=InferenceMode.DECODE)
        return F.cat([q, k], -1)

    assert run_layer(layer, call, backend, x=torch.ones(3, 8)).shape == (3, 6)


@pytest.mark.parametrize("backend", LOCAL)
def test_feed_forward_norm_and_embedding_take_what_the_original_gives_them(backend: str) -> None:
    config = small_config().hf_config
    x = torch.ones(3, config.hidden_size)
    mlp = Mlp(config, file_loader=None, prefix="mlp", config_metadata=None)
    y = run_layer(mlp, lambda: mlp.forward(inputs=Tensor("x"), inference_mode=InferenceMode.ANY), backend, x=x)
    assert y.shape == x.shape
    norm = RmsNorm(config, file_loader=None, prefix="norm")
    torch.testing.assert_close(run_layer(norm, lambda: norm(Tensor("x")), backend, x=x), x, rtol=1e-4, atol=1e-4)
    embedding = ParallelEmbedding(config, None, "embed")
    ids = torch.tensor([1, 2])
    assert torch.equal(
        run_layer(embedding, lambda: embedding(Tensor("ids")), backend, ids=ids), torch.ones(2, x.shape[1])
    )


@pytest.mark.parametrize("backend", LOCAL)
def test_a_mixture_of_experts_routes_and_sums(backend: str) -> None:
    config = MoeConfig(hidden_size=32, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)
    moe = Moe(config, None, prefix="mlp")
    assert isinstance(moe.experts, FusedExperts)
    x = torch.randn(3, 32)
    y = run_layer(moe, lambda: moe(Tensor("x", (3, 32), FLOAT)), backend, x=x)
    total = x.sum(1, keepdim=True)
    expected = 16 * torch.nn.functional.silu(total) * total
    assert y.shape == x.shape
    # Experts of equal weights give the same result, weighted by what sums to 1.
    torch.testing.assert_close(y[:, :1] / expected, (y[:, :1] / expected)[:1].expand(3, 1), rtol=1e-3, atol=1e-4)


def test_an_attention_layer_has_the_attributes_of_the_original() -> None:
    layer = Attention(small_config().hf_config, None, prefix="a", config_metadata=None)
    assert (layer.head_size, layer.num_heads_per_rank, layer.num_key_value_heads_per_rank) == (
        layer.head_dim, layer.num_heads, layer.num_kv_heads,
    )  # fmt: skip
    assert layer.q_norm is None and layer.k_norm is None and layer.mapping.attn_tp.group_size == 1


def test_groups_have_the_originals_keywords() -> None:
    group = dist.new_group(ranks=[0], backend="hccl", buffer_size=128)
    assert group == "-1" and isinstance(dist.is_initialized(), bool)
    x = Tensor("x")
    assert dist.all_reduce(send_tensor=x, process_group=group, all_reduce_type=dist.AllReduceType.SUM) is x
    assert dist.all_gather(send_tensor=x, process_group=group) is x
    assert Mapping(world_size=1, rank=0).mlp_tp.process_group == group
