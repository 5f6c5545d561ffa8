# SPDX-License-Identifier: Apache-2.0
"""The chain of ops that a mixture of experts is: symbolic sizes, batch invariance, and data that fits nothing."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

from atb_core._cpu import supported_isas
from atb_core.engine import get_backend
from atb_core.engine.cpu import CpuBackend
from atb_core.errors import AtbError, EngineError, GraphError, ShapeError
from atb_core.graph import DataType, Dim, Network, Tensor
from atb_core.nn import functional as F

EXPERTS, CHOSEN, HIDDEN, INNER = 7, 3, 40, 24
BACKENDS = ["reference", "cpu"]


def network(dtype: DataType = DataType.BF16) -> Network:
    """A gate and gated experts."""
    with Network("moe") as net:
        x = Tensor("x", (Dim("T"), HIDDEN), dtype)
        gate = Tensor("gate", (EXPERTS, HIDDEN), dtype)
        up = Tensor("up", (EXPERTS, 2 * INNER, HIDDEN), dtype)
        down = Tensor("down", (EXPERTS, INNER, HIDDEN), dtype)
        weights, chosen, _ = F.moe_topk_softmax(F.linear(x, gate), CHOSEN)
        rows, places, ends = F.moe_init_routing(x, chosen, CHOSEN, EXPERTS)
        rows = F.activation(F.grouped_matmul(rows, up, group_list=ends, transpose_b=True), F.ActType.SWIGLU)
        rows = F.grouped_matmul(rows, down, group_list=ends)
        net.mark_output(F.moe_token_unpermute(rows, places, weights), "y")
    net.weights_keys |= {"gate", "up", "down"}
    return net


def random_weights(dtype: torch.dtype = torch.bfloat16) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = {"gate": (EXPERTS, HIDDEN), "up": (EXPERTS, 2 * INNER, HIDDEN), "down": (EXPERTS, INNER, HIDDEN)}
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}


def tokens(count: int) -> torch.Tensor:
    return torch.randn(count, HIDDEN, generator=torch.Generator().manual_seed(2)).bfloat16()


def test_sizes_stay_symbolic_through_the_chain() -> None:
    net = network()
    shapes = {node.op.name: [str(t.shape) for t in node.outputs] for node in net}
    assert shapes["MoeInitRouting"] == [f"(3*T, {HIDDEN})", "(3*T,)", f"({EXPERTS},)"]
    assert shapes["MoeTokenUnpermute"] == [f"(T, {HIDDEN})"]


def test_a_tokens_answer_is_the_same_in_every_batch_on_every_level_for_every_number_of_threads() -> None:
    x = tokens(19)
    expected = None
    for isa in supported_isas():
        for threads in (1, 3):
            engine = CpuBackend(num_threads=threads, isa=isa, small_work=0).build(network())
            engine.set_weights(random_weights())
            together = engine.forward({"x": x})["y"]
            alone = torch.cat([engine.forward({"x": row[None]})["y"] for row in x])
            turned = engine.forward({"x": x.flip(0).contiguous()})["y"].flip(0)
            expected = together if expected is None else expected
            assert torch.equal(together, expected) and torch.equal(alone, expected) and torch.equal(turned, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_tokens_are_no_error(backend: str) -> None:
    engine = get_backend(backend).build(network())
    engine.set_weights(random_weights())
    assert engine.forward({"x": tokens(0)})["y"].shape == (0, HIDDEN)


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_may_come_expert_by_expert(backend: str) -> None:
    weights, x = random_weights(), tokens(5)
    engine = get_backend(backend).build(network())
    engine.set_weights(weights)
    expected = engine.forward({"x": x})["y"].clone()
    engine = get_backend(backend).build(network())
    engine.set_weights({"gate": weights["gate"], "down": weights["down"]})
    for e in range(EXPERTS):
        with pytest.raises(EngineError, match="up"):
            engine.forward({"x": x})
        engine.set_weight_part("up", e, weights["up"][e : e + 1])
    assert torch.equal(engine.forward({"x": x})["y"], expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_parts_that_do_not_fit_or_are_not_next_are_refused(backend: str) -> None:
    engine = get_backend(backend).build(network())
    part = random_weights()["up"][:1]
    engine.set_weight_part("up", 0, part)
    with pytest.raises(EngineError, match="begins at 2, but the next one has to begin at 1"):
        engine.set_weight_part("up", 2, part)
    with pytest.raises(EngineError, match="rows 7 to 8 are no part"):
        engine.set_weight_part("up", EXPERTS, part)
    with pytest.raises(EngineError, match="must be bfloat16"):
        engine.set_weight_part("up", 1, part.float())
    with pytest.raises(EngineError, match=r"shape \[1, 48, 39\]"):
        engine.set_weight_part("up", 1, part[..., :-1].contiguous())
    with pytest.raises(EngineError, match="unknown: u"):
        engine.set_weight_part("u", 0, part)


def run(net: Network, inputs: Mapping[str, torch.Tensor], backend: str) -> None:
    net.build_engine(["All"], backend=backend).forward(inputs)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("expert", [-1, 4, 2**31 - 1])
def test_an_expert_that_does_not_exist_is_an_error_of_the_run(backend: str, expert: int) -> None:
    with Network() as net:
        for i, out in enumerate(F.moe_init_routing(Tensor("x"), Tensor("experts"), 2, 4)):
            net.mark_output(out, f"out{i}")
    chosen = torch.tensor([[0, 1], [3, expert], [2, 2]], dtype=torch.int32)
    with pytest.raises(EngineError, match=r"MoeInitRouting.*expert"):
        run(net, {"x": torch.randn(3, 8), "experts": chosen}, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("ends", [[2, 1, 4], [1, 2, 3], [1, 2, 5], [-1, 2, 4], [0, 2**40, 4]])
def test_groups_that_do_not_fit_the_rows_are_an_error_of_the_run(backend: str, ends: list[int]) -> None:
    with Network() as net:
        net.mark_output(F.grouped_matmul(Tensor("x"), Tensor("w"), group_list=Tensor("ends")), "y")
    inputs = {"x": torch.randn(4, 8), "w": torch.randn(3, 8, 5), "ends": torch.tensor(ends)}
    with pytest.raises(EngineError, match=r"GroupedMatmul.*group_list must"):
        run(net, inputs, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("row", [-1, 4])
def test_a_row_that_does_not_exist_is_an_error_of_the_run(backend: str, row: int) -> None:
    with Network() as net:
        net.mark_output(F.moe_token_unpermute(Tensor("x"), Tensor("rows"), Tensor("probs")), "y")
    rows = torch.tensor([0, 1, 2, row], dtype=torch.int32)
    with pytest.raises(EngineError, match=r"MoeTokenUnpermute.*row"):
        run(net, {"x": torch.randn(4, 8), "rows": rows, "probs": torch.rand(2, 2)}, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_group_lists_are_int64_and_choices_int32(backend: str) -> None:
    with Network() as net:
        net.mark_output(F.grouped_matmul(Tensor("x"), Tensor("w"), group_list=Tensor("ends")), "y")
    inputs = {"x": torch.randn(4, 8), "w": torch.randn(2, 8, 5), "ends": torch.tensor([1, 4], dtype=torch.int32)}
    with pytest.raises(AtbError, match="group_list must be int64, not int32"):
        run(net, inputs, backend)
    with Network(), pytest.raises(ShapeError, match="expert_idx must be int32, not int64"):
        F.moe_init_routing(
            Tensor("x", (4, 8), DataType.FLOAT), Tensor("experts", (4, 2), DataType.INT64), topk_num=2, expert_num=3
        )


def test_shapes_that_do_not_fit_are_refused_where_they_are_recorded() -> None:
    x = Tensor("x", (6, 8), DataType.FLOAT)
    ends = Tensor("ends", (3,), DataType.INT64)
    with Network():
        with pytest.raises(ShapeError, match="disagree over k"):
            F.grouped_matmul(x, Tensor("w", (3, 5, 8), DataType.FLOAT), group_list=ends)
        with pytest.raises(ShapeError, match=r"group_list must be \[4\]"):
            F.grouped_matmul(x, Tensor("v", (4, 8, 5), DataType.FLOAT), group_list=ends)
        with pytest.raises(GraphError, match="needs group_list"):
            F.grouped_matmul(x, Tensor("u", (3, 8, 5), DataType.FLOAT))
        with pytest.raises(ShapeError, match="9 of only 8 experts"):
            F.moe_topk_softmax(x, 9)
        with pytest.raises(ShapeError, match=r"expert_idx must be \[6, 2\], not \[6, 3\]"):
            F.moe_init_routing(x, Tensor("e", (6, 3), DataType.INT32), 2, 4)
        rows = Tensor("rows", (8,), DataType.INT32)
        with pytest.raises(ShapeError, match="number of rows"):
            F.moe_token_unpermute(x, rows, Tensor("p", (4, 2), DataType.FLOAT))
