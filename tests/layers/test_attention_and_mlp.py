# SPDX-License-Identifier: Apache-2.0
"""Attention, feed-forward, norm and embedding layers against plain torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_model import small_config

from atb_core import nn
from atb_core.errors import GraphError
from atb_core.graph import DataType, Network, Tensor
from atb_core.layers.attention.attention import Attention
from atb_core.layers.attention.kv_cache_spec import KVCacheSpec
from atb_core.layers.attention.metadata import AttentionMetadata
from atb_core.layers.embedding.word_embedding import ParallelEmbedding
from atb_core.layers.linear.linear import ColumnParallelLinear
from atb_core.layers.mlp.mlp import Mlp
from atb_core.layers.norm.normalization import RmsNorm
from atb_core.models.base.mindie_llm_config import ModelStatus
from atb_core.models.runtime.inputs import symbolic_inputs
from atb_core.models.runtime.weight_loading import collect_parameters

TOKENS = 5


def engine_of(layer: Any, record: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """An engine of what `record()` gives, with random weights, and these weights."""
    with Network() as net:
        net.mark_output(record(), "y")
        engine = net.build_engine(backend="reference")
    weights = {p.name: torch.randn(p.declared_shape or ()) / 4 for p in collect_parameters([layer])}
    engine.set_weights(weights)
    return engine, weights


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos[:, None] + torch.cat((-second, first), -1) * sin[:, None]


@pytest.mark.parametrize("heads", [(4, 1), (4, 2), (4, 4), (7, 1)])
@pytest.mark.parametrize(("qk_norm", "bias"), [(False, False), (True, True)])
def test_attention_of_a_prompt(heads: tuple[int, int], qk_norm: bool, bias: bool) -> None:
    config = small_config(
        num_attention_heads=heads[0], num_key_value_heads=heads[1], head_dim=16, use_qk_norm=qk_norm
    ).hf_config
    layer = Attention(config, None, "a", qkv_bias=bias, dense_bias=bias)
    specs = [KVCacheSpec.of_heads(heads[1], 16, DataType.FLOAT)]
    inputs = symbolic_inputs(specs, [config.rope()], DataType.FLOAT, "prefill")
    tables = (Tensor("cos", (TOKENS, 16), DataType.FLOAT), Tensor("sin", (TOKENS, 16), DataType.FLOAT))

    def record() -> Tensor:
        x = Tensor("x", (TOKENS, 32), DataType.FLOAT)
        slots = Tensor("slots", (TOKENS,), DataType.INT32)
        return layer(  # type: ignore[no-any-return]
            x, AttentionMetadata(*tables, inputs["k_caches"][0], inputs["v_caches"][0], slots, inputs["input_lengths"])
        )

    engine, w = engine_of(layer, record)
    caches = [torch.zeros(2, 4, heads[1], 16) for _ in range(2)]
    engine.set_kv_caches({"layer_0_k_cache": caches[0], "layer_0_v_cache": caches[1]})
    x, cos, sin = torch.randn(TOKENS, 32), torch.randn(TOKENS, 16), torch.randn(TOKENS, 16)
    slots = torch.tensor([1, 2, 3, 4, 5], dtype=torch.int32)
    lengths = torch.tensor([TOKENS], dtype=torch.int32)
    y = engine.forward({"x": x, "cos": cos, "sin": sin, "slots": slots, "input_lengths": lengths})["y"]

    packed = "a.q_proj_k_proj_v_proj"
    projected = torch.nn.functional.linear(x, w[f"{packed}.weight"], w.get(f"{packed}.bias"))
    q, k, v = (
        part.reshape(TOKENS, -1, 16) for part in projected.split([heads[0] * 16, heads[1] * 16, heads[1] * 16], -1)
    )
    if qk_norm:
        q = torch.nn.functional.rms_norm(q, (16,), w["a.q_norm.weight"], config.rms_norm_eps)
        k = torch.nn.functional.rms_norm(k, (16,), w["a.k_norm.weight"], config.rms_norm_eps)
    q, k = rotate(q, cos, sin), rotate(k, cos, sin)
    out = torch.nn.functional.scaled_dot_product_attention(
        *(t.transpose(0, 1)[None] for t in (q, k, v)), is_causal=True, enable_gqa=True
    )
    flat = out[0].transpose(0, 1).reshape(TOKENS, -1)
    expected = torch.nn.functional.linear(flat, w["a.o_proj.weight"], w.get("a.o_proj.bias"))
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(caches[0].view(8, heads[1], 16)[1:6], k, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(caches[1].view(8, heads[1], 16)[1:6], v, rtol=1e-4, atol=1e-5)


def test_head_counts_come_from_the_metadata_if_there_is_any() -> None:
    config = small_config().hf_config
    layer = Attention(config, None, "a", ModelStatus(num_layers=2, num_heads=2, num_kv_heads=1, head_dim=16))
    assert (layer.num_heads, layer.num_kv_heads, layer.head_dim) == (2, 1, 16)
    assert layer.qkv.out_sizes == [32, 16, 16]


def test_arguments_of_an_unpaged_cache_are_refused() -> None:
    layer = Attention(small_config().hf_config, None, "a")
    x = Tensor("x")
    with Network(), pytest.raises(GraphError, match="unpaged"):
        layer(x, x, x, x, x, x, None, x, None, token_offset=x)


@pytest.mark.parametrize("bias", [False, True])
def test_feed_forward(bias: bool) -> None:
    layer = Mlp(small_config().hf_config, None, "m", bias=bias)
    engine, w = engine_of(layer, lambda: layer(Tensor("x", (TOKENS, 32), DataType.FLOAT)))
    x = torch.randn(TOKENS, 32)
    linear = torch.nn.functional.linear
    gate, up = linear(x, w["m.gate_proj_up_proj.weight"], w.get("m.gate_proj_up_proj.bias")).chunk(2, -1)
    expected = linear(torch.nn.functional.silu(gate) * up, w["m.down_proj.weight"], w.get("m.down_proj.bias"))
    torch.testing.assert_close(engine.forward({"x": x})["y"], expected, rtol=1e-4, atol=1e-5)


def test_feed_forward_with_another_layer_in_its_place() -> None:
    config = small_config().hf_config
    layer = Mlp(config, None, "m")
    layer.gate_up = ColumnParallelLinear(config, None, "m.gate_up_proj", in_features=32, out_features=96)
    assert sorted(p.name for p in collect_parameters([layer])) == ["m.down_proj.weight", "m.gate_up_proj.weight"]
    with Network():
        assert layer(Tensor("x", (TOKENS, 32), DataType.FLOAT)).shape == (TOKENS, 32)


def test_norm_and_embedding() -> None:
    config = small_config(rms_norm_eps=1e-3).hf_config
    norm, embedding = RmsNorm(config, None, "n"), ParallelEmbedding(config, None, "e")
    modules = nn.ModuleList([norm, embedding])
    engine, w = engine_of(modules, lambda: norm(embedding(Tensor("ids", (3,), DataType.INT64))))
    ids = torch.tensor([5, 0, 96])
    expected = torch.nn.functional.rms_norm(w["e.weight"][ids], (32,), w["n.weight"], 1e-3)
    torch.testing.assert_close(engine.forward({"ids": ids})["y"], expected, rtol=1e-5, atol=1e-6)


def test_sizes_are_taken_by_keyword_and_by_position() -> None:
    config, sizes, infer_param = small_config().hf_config, ModelStatus(2, 2, 1, 8), object()
    for layer in (
        Attention(config, None, "a", sizes, infer_param),
        Attention(config, None, "a", config_metadata=sizes, infer_param=infer_param),
    ):
        assert (layer.num_heads, layer.num_kv_heads, layer.head_dim) == (2, 1, 8)
        assert layer.infer_param is infer_param
    for mlp in (Mlp(config, None, "m", sizes), Mlp(config, None, "m", config_metadata=sizes)):
        assert mlp.config_metadata is sizes
