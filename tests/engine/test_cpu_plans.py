# SPDX-License-Identifier: Apache-2.0
"""Plans: one for each choice of sizes, kept, with memory that is used again."""

from __future__ import annotations

import torch
from engine.networks import VOCAB, tiny_engine, tiny_weights

from atb_core.engine.cpu import CpuBackend
from atb_core.graph import DataType, Dim, Network, Tensor
from atb_core.nn.functional import cat


def test_each_size_has_its_plan_and_old_ones_go() -> None:
    engine = tiny_engine()
    for tokens in (1, 4, 1, 7):
        assert engine.forward({"ids": torch.zeros(tokens, dtype=torch.int64)})["logits"].shape == (tokens, VOCAB)
    assert engine._program is not None
    assert engine._program.handle.num_plans == 3
    for tokens in range(1, 100):
        engine.forward({"ids": torch.zeros(tokens, dtype=torch.int64)})
    assert engine._program.handle.num_plans == 64


def test_programs_of_undeclared_shapes_are_bounded_too() -> None:
    engine = tiny_engine(shapes=False)
    for tokens in range(1, 40):
        engine.forward({"ids": torch.zeros(tokens, dtype=torch.int64)})
    assert len(engine._programs) == 16


def test_a_long_chain_needs_two_buffers() -> None:
    with Network("chain") as net:
        x = Tensor("x", (Dim("n"), 64), DataType.FLOAT)
        y = x
        for _ in range(20):
            y = y * 2.0
        net.mark_output(y, "y")
    engine = CpuBackend(num_threads=2).build(net)
    out = engine.forward({"x": torch.ones(10, 64)})["y"]
    assert torch.equal(out, torch.full((10, 64), 2.0**20))
    assert engine.plan_info()["arena_bytes"] == 2 * 10 * 64 * 4
    assert engine.plan_info()["steps"] == 20


def test_views_and_contiguous_parts_are_not_copied() -> None:
    tokens = Dim("tokens")
    with Network("views") as net:
        x = Tensor("x", (tokens, 12), DataType.FLOAT)
        heads = x.reshape(lambda shape: [shape[0], 3, 4])
        net.mark_output(heads * 1.0, "y")
        net.mark_output(x[:, 4:8] * 1.0, "z")
    engine = CpuBackend(num_threads=2).build(net)
    for size, steps in ((1, 2), (5, 3)):  # the columns of a single row are contiguous
        value = torch.randn(size, 12)
        results = engine.forward({"x": value})
        assert torch.equal(results["y"], value.view(size, 3, 4))
        assert torch.equal(results["z"], value[:, 4:8])
        assert engine.plan_info()["steps"] == steps


def test_sizes_that_are_sums_and_products_are_followed() -> None:
    a, b = Dim("a"), Dim("b")
    with Network("sum") as net:
        x, y = Tensor("x", (a, 2, b), DataType.FLOAT), Tensor("y", (a * 2, b), DataType.FLOAT)
        rows = x.reshape(lambda shape: [shape[0] * shape[1], shape[2]])
        net.mark_output(cat([rows, y], 0), "z")
    engine = CpuBackend(num_threads=2).build(net)
    x_value, y_value = torch.randn(3, 2, 5), torch.randn(6, 5)
    z = engine.forward({"x": x_value, "y": y_value})["z"]
    assert torch.equal(z, torch.cat([x_value.view(6, 5), y_value]))


def test_empty_inputs_give_empty_outputs() -> None:
    assert tiny_engine().forward({"ids": torch.zeros(0, dtype=torch.int64)})["logits"].shape == (0, VOCAB)


def test_working_memory_is_shared_by_the_engines_of_a_backend() -> None:
    backend = CpuBackend(num_threads=2)
    store = backend.new_store()
    big = torch.zeros(512, dtype=torch.int64)
    tiny_engine(store=store).forward({"ids": big})
    size = backend.runtime.workspace_bytes
    tiny_engine(store=store).forward({"ids": big})
    assert backend.runtime.workspace_bytes == size
    assert store.nbytes < 3 * sum(value.nbytes for value in tiny_weights().values())
