# SPDX-License-Identifier: Apache-2.0
"""Arguments by which layers compute otherwise: activations, scales, offsets, rotation of parts and of neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from small_model import SMALL, MemoryLoader, small_config

from atb_core import nn
from atb_core.errors import ConfigError, GraphError
from atb_core.graph import DataType, Network, Tensor
from atb_core.graph.arrays import to_torch
from atb_core.layers.attention.attention import Attention
from atb_core.layers.attention.long_form import call_layer
from atb_core.layers.attention.metadata import AttentionMetadata
from atb_core.layers.embedding.word_embedding import ParallelEmbedding
from atb_core.layers.mlp.mlp import Mlp
from atb_core.layers.moe.fused_experts import FusedExperts
from atb_core.layers.norm.normalization import RmsNorm
from atb_core.models.base.config import BaseConfig
from atb_core.models.runtime.weight_loading import collect_parameters, plan_loading, stream_weights

TOKENS, HEAD = 5, 16
F32 = DataType.FLOAT
functional = torch.nn.functional


def run(record: Any, inputs: dict[str, torch.Tensor], weights: dict[str, torch.Tensor], backend: str) -> torch.Tensor:
    with Network() as net:
        net.mark_output(record(), "y")
        engine = net.build_engine(backend=backend)
    engine.set_weights(weights)
    return torch.Tensor.clone(engine.forward(inputs)["y"])


def random_weights(layer: nn.Module) -> dict[str, torch.Tensor]:
    return {p.name: torch.randn(p.declared_shape or ()) / 4 for p in collect_parameters([layer])}


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("silu", functional.silu),
        ("gelu", functional.gelu),
        ("gelu_pytorch_tanh", lambda x: functional.gelu(x, approximate="tanh")),
        ("relu", functional.relu),
    ],
)
def test_the_activation_is_the_arguments_or_the_configurations(name: str, expected: Any, backend: str) -> None:
    for layer in (Mlp(small_config().hf_config, None, "m", activation=name), Mlp(with_activation(name), None, "m")):
        weights, x = random_weights(layer), torch.randn(TOKENS, 32)
        gate, up = (x @ weights["m.gate_proj_up_proj.weight"].T).chunk(2, -1)
        wanted = (expected(gate) * up) @ weights["m.down_proj.weight"].T
        made = run(lambda layer=layer: layer(Tensor("x", (TOKENS, 32), F32)), {"x": x}, weights, backend)
        torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-5)


def with_activation(name: str) -> Any:
    config = small_config().hf_config
    config.hidden_act = name
    return config


def test_an_unknown_activation_is_refused_by_the_layer() -> None:
    with pytest.raises(ConfigError, match=r"m has no activation 'quick_gelu'.*gelu_pytorch_tanh"):
        Mlp(small_config().hf_config, None, "m", activation="quick_gelu")
    config = with_activation("gelu")
    config.num_experts, config.moe_intermediate_size = 2, 8  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="experts with the activation 'gelu'"):
        FusedExperts(config, None, "m.experts")


def test_a_norm_adds_its_offset_when_the_weight_is_loaded() -> None:
    norm = RmsNorm(small_config().hf_config, None, "n", offset=1.0)
    stored = torch.randn(32)
    loaded: dict[str, torch.Tensor] = {}
    loader: Any = MemoryLoader({"n.weight": stored})
    plan = plan_loading(collect_parameters([norm]), loader)
    stream_weights(plan, loader, lambda n, t: loaded.update({n: to_torch(t)}))
    assert torch.equal(loaded["n.weight"], stored + 1)
    exact = RmsNorm(small_config(torch_dtype="bfloat16").hf_config, None, "n", offset=1.0, dtype=F32)
    assert exact.weight.process(stored.bfloat16()).dtype == np.float32
    # It is the same op, so the fusions are the same.
    with Network() as net:
        net.mark_output(norm(Tensor("x", (TOKENS, 32), F32)), "y")
    assert [node.op.name for node in net] == ["RmsNorm"]


def test_an_embedding_scales_its_rows() -> None:
    layer = ParallelEmbedding(small_config().hf_config, None, "e", scale=3.0)
    weights, ids = random_weights(layer), torch.tensor([5, 0, 96])
    made = run(lambda: layer(Tensor("ids", (3,), DataType.INT64)), {"ids": ids}, weights, "reference")
    torch.testing.assert_close(made, 3 * weights["e.weight"][ids])


def metadata(size: int, **more: Any) -> AttentionMetadata:
    tables = (Tensor(name, (TOKENS, size), F32) for name in ("cos", "sin"))
    caches = (Tensor(name, (2, 4, 2, HEAD), F32) for name in ("k_cache", "v_cache"))
    slots, lengths = Tensor("slots", (TOKENS,), DataType.INT32), Tensor("lengths", (1,), DataType.INT32)
    return AttentionMetadata(*tables, *caches, slots, lengths, **more)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("size", [4, 8, 16])
def test_the_first_elements_of_a_head_are_rotated_by_halves_or_as_neighbours(
    size: int, interleaved: bool, backend: str
) -> None:
    layer = Attention(small_config(head_dim=HEAD).hf_config, None, "a")
    q, k, angles = torch.randn(TOKENS, 4 * HEAD), torch.randn(TOKENS, 2 * HEAD), torch.randn(TOKENS, size // 2)
    table = angles.repeat_interleave(2, -1) if interleaved else torch.cat((angles, angles), -1)

    def record(which: int) -> Tensor:
        given = Tensor("q", (TOKENS, 4 * HEAD), F32), Tensor("k", (TOKENS, 2 * HEAD), F32)
        return layer.rotate(*given, metadata(size, interleaved=interleaved))[which]

    lengths = torch.tensor([TOKENS], dtype=torch.int32)
    inputs = {"q": q, "k": k, "cos": table.cos(), "sin": table.sin(), "lengths": lengths}
    for which, x in enumerate((q, k)):
        heads = x.view(TOKENS, -1, HEAD)
        part = heads[..., :size]
        first, second = (part[..., ::2], part[..., 1::2]) if interleaved else part.chunk(2, -1)
        # A rotation is a product of complex numbers.
        turned = torch.complex(first, second) * torch.polar(torch.ones(()), angles)[:, None]
        rotated = (
            torch.stack((turned.real, turned.imag), -1).flatten(-2)
            if interleaved
            else torch.cat((turned.real, turned.imag), -1)
        )
        wanted = torch.cat((rotated, heads[..., size:]), -1).flatten(1)
        torch.testing.assert_close(run(lambda w=which: record(w), inputs, {}, backend), wanted, rtol=1e-4, atol=1e-5)


def test_a_layer_without_tables_rotates_nothing() -> None:
    layer = Attention(small_config(head_dim=HEAD).hf_config, None, "a")
    q, k = Tensor("q", (TOKENS, 4 * HEAD), F32), Tensor("k", (TOKENS, 2 * HEAD), F32)
    plain = metadata(HEAD)
    with Network():
        bare = AttentionMetadata(None, None, plain.k_cache, plain.v_cache, plain.slots, plain.input_lengths)
        assert layer.rotate(q, k, bare) == (q, k)


def test_the_factor_of_the_scores() -> None:
    config = small_config(head_dim=HEAD).hf_config
    assert Attention(config, None, "a").scale == 0.25
    assert Attention(config, None, "a", scale=0.1).scale == 0.1


def test_the_cap_of_the_scores() -> None:
    @dataclass
    class Capped(BaseConfig):
        attn_logit_softcapping: float | None = None

    plain = small_config(head_dim=HEAD).hf_config
    assert Attention(plain, None, "a").logits_soft_cap == 0.0
    assert Attention(plain, None, "a", logits_soft_cap=50.0).logits_soft_cap == 50.0
    config = Capped.from_dict({**SMALL, "attn_logit_softcapping": 30.0})
    assert Attention(config, None, "a").logits_soft_cap == 30.0


@pytest.mark.parametrize("more", [{"window": 8}, {"interleaved": True}])
def test_a_layer_in_the_long_form_is_not_called_without_what_it_cannot_get(more: dict[str, Any]) -> None:
    class Theirs(Attention):
        def forward(  # type: ignore[override]
            self, x: Any, cos: Any, sin: Any, k: Any, v: Any, slots: Any, mask: Any, lengths: Any, table: Any,
            offset: Any, ids: Any, is_prefill: bool,
        ) -> Any:  # fmt: skip
            return x

    layer = Theirs(small_config(head_dim=HEAD).hf_config, None, "a")
    x = Tensor("x", (TOKENS, 32), F32)
    with Network():
        assert call_layer(layer, x, metadata(HEAD)) is x
        with pytest.raises(GraphError, match=r"Theirs\.forward takes the arguments of ATB-Models, which have no slid"):
            call_layer(layer, x, metadata(HEAD, **more))


def test_packed_matrices_of_a_checkpoint_load_as_they_are() -> None:
    layers = nn.ModuleList(
        [Attention(small_config().hf_config, None, "a", qkv_bias=True), Mlp(small_config().hf_config, None, "m")]
    )
    packed = {
        "a.qkv_proj.weight": torch.randn(64, 32), "a.qkv_proj.bias": torch.randn(64),
        "m.gate_up_proj.weight": torch.randn(96, 32),
    }  # fmt: skip
    rest = {"a.o_proj.weight": torch.randn(32, 32), "m.down_proj.weight": torch.randn(32, 48)}
    loaded: dict[str, torch.Tensor] = {}
    loader: Any = MemoryLoader({**packed, **rest})
    plan = plan_loading(collect_parameters(layers), loader)
    stream_weights(plan, loader, lambda n, t: loaded.update({n: to_torch(t)}))
    assert torch.equal(loaded["a.q_proj_k_proj_v_proj.weight"], packed["a.qkv_proj.weight"])
    assert torch.equal(loaded["a.q_proj_k_proj_v_proj.bias"], packed["a.qkv_proj.bias"])
    assert torch.equal(loaded["m.gate_proj_up_proj.weight"], packed["m.gate_up_proj.weight"])
