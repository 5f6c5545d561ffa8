# SPDX-License-Identifier: Apache-2.0
"""The table of what ops have to do, against counts by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from atb_core.graph import DataType, Dim, Network, Tensor
from atb_core.graph.network import record
from atb_core.graph.op import Op, registered_ops
from atb_core.graph.ops.attention import CalcType, PagedAttention, SelfAttention
from atb_core.graph.ops.linear import Linear, MergedLinear
from atb_core.graph.ops.movement import Gather
from atb_profile import Cost, Operand, cost_of
from atb_profile.costs import PRODUCTS, ops_with_costs

TOKENS = Dim("tokens")


def node(op: Op, *inputs: Tensor) -> object:
    with Network() as network:
        record(op, inputs)
    return network.nodes[0]


def bf16(name: str, *shape: object) -> Tensor:
    return Tensor(name, shape, DataType.BF16)


def int32(name: str, *shape: object) -> Tensor:
    return Tensor(name, shape, DataType.INT32)


def test_every_op_of_the_core_has_a_cost_and_products_are_known() -> None:
    own = {name for name, op in registered_ops().items() if not op.namespace}
    assert own == ops_with_costs()
    assert {name for name in own if "Linear" in name or "Matmul" in name} == PRODUCTS


def test_a_linear_multiplies_every_row_with_every_column() -> None:
    made = node(Linear(has_bias=True), bf16("x", TOKENS, 8), bf16("w", 6, 8), bf16("b", 6))
    assert cost_of(made, {"tokens": 5}, {}) == Cost(2 * 5 * 6 * 8 + 5 * 6, 2 * (5 * 8 + 6 * 8 + 6 + 5 * 6))


def test_a_merged_linear_reads_its_input_once() -> None:
    made = node(MergedLinear(2), bf16("x", TOKENS, 8), bf16("w", 6, 8), bf16("u", 4, 8))
    assert cost_of(made, {"tokens": 5}, {}) == Cost(2 * 5 * 10 * 8, 2 * (5 * 8 + 10 * 8 + 5 * 10))


def test_causal_attention_counts_the_pairs_that_are_seen() -> None:
    q, k, v = bf16("q", TOKENS, 4, 16), bf16("k", TOKENS, 2, 16), bf16("v", TOKENS, 2, 16)
    made = node(SelfAttention(4, 2, is_triu_mask=True), q, k, v, int32("lengths", 2))
    pairs = (1 + 2 + 3) + (1 + 2)
    cost = cost_of(made, {"tokens": 5}, {"lengths": (3, 2)})
    assert cost == Cost(4 * pairs * (2 * 16 + 2 * 16 + 5), 2 * 5 * 16 * (4 + 2 + 2 + 4))


def test_decode_reads_the_cache_up_to_the_length_of_each_context() -> None:
    cache = [bf16(name, Dim("blocks"), 16, 2, 16) for name in ("k", "v")]
    inputs = (bf16("q", 2, 4, 16), *cache, int32("tables", 2, 8), int32("lengths", 2))
    cost = cost_of(node(PagedAttention(4, 2), *inputs), {}, {"lengths": (100, 7)})
    assert cost == Cost(4 * 107 * (2 * 16 + 2 * 16 + 5), 2 * (2 * 4 * 16) * 2 + 107 * 2 * 2 * 16 * 2)


def test_new_tokens_of_a_context_see_what_is_before_them() -> None:
    cache = [bf16(name, Dim("blocks"), 16, 2, 16) for name in ("k", "v")]
    inputs = (bf16("q", TOKENS, 4, 16), *cache, int32("tables", 1, 8), int32("lengths", 1), int32("q_lens", 1))
    made = node(PagedAttention(4, 2, calc_type=CalcType.SPEC), *inputs)
    cost = cost_of(made, {"tokens": 3}, {"lengths": (10,), "q_lens": (3,)})
    assert cost is not None
    assert cost.flops == 4 * (8 + 9 + 10) * (2 * 16 + 2 * 16 + 5)


def test_a_gather_reads_the_chosen_rows_alone() -> None:
    made = node(Gather(), bf16("table", 1000, 8), Tensor("ids", (TOKENS,), DataType.INT64))
    assert cost_of(made, {"tokens": 5}, {}) == Cost(0, 5 * 8 + 2 * 5 * 8 * 2)


def test_a_cost_that_depends_on_an_unknown_size_is_unknown() -> None:
    made = node(Linear(), bf16("x", TOKENS, 8), bf16("w", 6, 8))
    assert cost_of(made, {}, {}) is None


@pytest.mark.parametrize("declared", [True, False])
def test_an_op_of_another_package_declares_its_own(declared: bool) -> None:
    methods = {"cost": _three_for_each} if declared else {}

    @dataclass(frozen=True)
    class Custom(Op, namespace=f"costs_{declared}"):
        def infer_shapes(self, *shapes: object) -> tuple[object, ...]:
            return (shapes[0],)

    for name, method in methods.items():
        setattr(Custom, name, method)
    expected = Cost(15, 0) if declared else None
    assert cost_of(node(Custom(), bf16("x", TOKENS)), {"tokens": 5}, {}) == expected


def _three_for_each(op: Op, inputs: Sequence[Operand], outputs: Sequence[Operand]) -> tuple[int, int]:
    return 3 * inputs[0].numel, 0
