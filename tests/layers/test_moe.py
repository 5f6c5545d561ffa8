# SPDX-License-Identifier: Apache-2.0
"""The mixture of experts against plain torch, expert by expert."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_model import SMALL

from atb_core.graph import DataType, Network, Tensor
from atb_core.graph.arrays import dtype_to_torch
from atb_core.layers.moe.moe import Moe
from atb_core.models.base.moe_config import MoeConfig
from atb_core.models.runtime.weight_loading import collect_parameters

HIDDEN, EXPERTS, CHOSEN, INNER, SHARED = 32, 6, 2, 24, 40


def moe_config(**changes: Any) -> MoeConfig:
    sizes = {"num_experts": EXPERTS, "num_experts_per_tok": CHOSEN, "moe_intermediate_size": INNER}
    return MoeConfig.from_dict({**SMALL, **sizes, **changes})


def run(config: MoeConfig, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The layer's answer to x on the reference engine, and the random weights that it had."""
    layer = Moe(config, None, "m")
    dtype = dtype_to_torch(config.data_type)
    with Network() as net:
        net.mark_output(layer(Tensor("x", tuple(x.shape), config.data_type)), "y")
        engine = net.build_engine(backend="reference")
    generator = torch.Generator().manual_seed(2)
    weights = {
        p.name: (torch.randn(p.declared_shape or (), generator=generator) / 3).to(dtype)
        for p in collect_parameters([layer])
    }
    engine.set_weights(weights)
    y = engine.forward({"x": x.to(dtype)}, {"y": torch.empty(x.shape, dtype=dtype)})["y"]
    return y, weights


def gated(x: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    gate, up = (x @ gate_up.T).chunk(2, -1)
    return (torch.nn.functional.silu(gate) * up) @ down.T


def expected(config: MoeConfig, x: torch.Tensor, w: dict[str, torch.Tensor]) -> torch.Tensor:
    probabilities = torch.softmax(x @ w["m.gate.weight"].T, -1)
    best, chosen = probabilities.topk(CHOSEN)
    if config.norm_topk_prob:
        best = best / best.sum(-1, keepdim=True)
    y = torch.zeros_like(x)
    for token in range(len(x)):
        for weight, expert in zip(best[token], chosen[token].tolist(), strict=True):
            answer = gated(x[token], w["m.experts.gate_up_proj"][expert], w["m.experts.down_proj"][expert])
            y[token] += weight * answer
    if config.shared_expert_intermediate_size:
        share = torch.sigmoid(x @ w["m.shared_expert_gate.weight"].T)
        prefix = "m.shared_expert"
        y += share * gated(x, w[f"{prefix}.gate_proj_up_proj.weight"], w[f"{prefix}.down_proj.weight"])
    return y


@pytest.mark.parametrize("tokens", [1, 9])
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("shared", [0, SHARED])
def test_every_token_gets_its_best_experts_and_the_shared_one(tokens: int, normed: bool, shared: int) -> None:
    config = moe_config(norm_topk_prob=normed, shared_expert_intermediate_size=shared)
    x = torch.randn(tokens, HIDDEN, generator=torch.Generator().manual_seed(1))
    y, weights = run(config, x)
    assert ("m.shared_expert_gate.weight" in weights) is bool(shared)
    torch.testing.assert_close(y, expected(config, x, weights))


def test_weights_are_float32_also_in_bfloat16() -> None:
    config = moe_config(torch_dtype="bfloat16")
    layer = Moe(config, None, "m")
    with Network():
        weights, chosen = layer.route(Tensor("x", (5, HIDDEN), DataType.BF16))
    assert (weights.dtype, weights.shape) == (DataType.FLOAT, (5, CHOSEN))
    assert (chosen.dtype, chosen.shape) == (DataType.INT32, (5, CHOSEN))


def test_in_bfloat16_experts_are_chosen_as_transformers_chooses_them() -> None:
    modeling = pytest.importorskip("transformers.models.qwen3_moe.modeling_qwen3_moe")
    config = moe_config(torch_dtype="bfloat16", norm_topk_prob=True)
    layer = Moe(config, None, "m")
    x = torch.randn(200, HIDDEN, generator=torch.Generator().manual_seed(3)).bfloat16()
    router = modeling.Qwen3MoeTopKRouter(config)
    torch.nn.init.normal_(router.weight, generator=torch.Generator().manual_seed(4))
    router = router.bfloat16()
    _, their_weights, theirs = router(x)
    with Network() as net:
        outputs = dict(zip(("weights", "chosen"), layer.route(Tensor("x", (200, HIDDEN), DataType.BF16)), strict=True))
        for name, tensor in outputs.items():
            net.mark_output(tensor, name)
        engine = net.build_engine(backend="reference")
    engine.set_weights({"m.gate.weight": router.weight.data})
    made = engine.forward(
        {"x": x}, {"weights": torch.empty(200, CHOSEN), "chosen": torch.empty(200, CHOSEN, dtype=torch.int32)}
    )
    # Among equal probabilities both may choose either.
    assert torch.equal(made["weights"].bfloat16(), their_weights)
    same = made["chosen"] == theirs
    logits = torch.nn.functional.linear(x, router.weight)
    assert torch.equal(logits.gather(1, made["chosen"].long()), logits.gather(1, theirs))
    assert same.float().mean() > 0.95


def test_names_and_shapes_of_what_a_checkpoint_holds() -> None:
    parameters = {p.name: p for p in collect_parameters([Moe(moe_config(), None, "m")])}
    assert set(parameters) == {"m.gate.weight", "m.experts.gate_up_proj", "m.experts.down_proj"}
    gate_up, down = parameters["m.experts.gate_up_proj"], parameters["m.experts.down_proj"]
    assert gate_up.declared_shape == (EXPERTS, 2 * INNER, HIDDEN)
    assert down.declared_shape == (EXPERTS, HIDDEN, INNER)
    assert [s.name for s in gate_up.sources][-2:] == ["m.experts.5.gate_proj.weight", "m.experts.5.up_proj.weight"]
    assert {s.shape for s in gate_up.sources} == {(INNER, HIDDEN)}
    assert {s.shape for s in down.sources} == {(HIDDEN, INNER)}
