# SPDX-License-Identifier: Apache-2.0
"""Modules: paths on recorded nodes, aliases, lists."""

from __future__ import annotations

import pytest
import torch

from atb_core import nn
from atb_core.graph import DataType, Network, Tensor
from atb_core.nn.modules import Linear, RmsNorm


class Block(nn.Module):
    def __init__(self, prefix: str) -> None:
        super().__init__()
        self.norm = RmsNorm(f"{prefix}.norm", 1e-6)
        self.proj = Linear(f"{prefix}.proj")

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.norm(x)) + x


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Block(f"layers.{i}") for i in range(2)])
        self.heads = nn.ModuleDict({"lm": Linear("lm")})

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.heads["lm"](x)


def test_nodes_carry_the_path_of_their_module() -> None:
    with Network() as net:
        Model()(Tensor("x"))
    assert [(node.op.name, node.module_path) for node in net.nodes] == [
        ("RmsNorm", "layers.0.norm"),
        ("Linear", "layers.0.proj"),
        ("Elewise", "layers.0"),
        ("RmsNorm", "layers.1.norm"),
        ("Linear", "layers.1.proj"),
        ("Elewise", "layers.1"),
        ("Linear", "heads.lm"),
    ]


def test_a_module_used_in_two_places_has_the_path_of_each_use() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            shared = Linear("w")
            self.left, self.right = nn.ModuleList([shared]), Block("b")
            self.right.proj = shared

        def forward(self, x: Tensor) -> Tensor:
            return self.left[0](self.right(x))

    with Network() as net:
        Twice()(Tensor("x"))
    assert [node.module_path for node in net.nodes] == ["right.norm", "right.proj", "right", "left.0"]


def test_the_path_is_restored_when_a_module_fails() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("no")

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Broken()

        def forward(self, x: Tensor) -> Tensor:
            with pytest.raises(RuntimeError):
                self.inner(x)
            return x + x

    with Network() as net:
        Outer()(Tensor("x"))
    assert net.nodes[0].module_path == ""


def test_aliases_find_attributes_under_other_names() -> None:
    block = Block("b")
    block.add_aliases({"projection": "proj"})
    assert block.getattr_by_alias("projection") is block.proj
    assert block.getattr_by_alias("norm") is block.norm
    assert block.projection is block.proj
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = block.nothing_of_the_kind


def test_primitive_modules_compute_what_torch_computes() -> None:
    linear = Linear("l", bias=True, shape=(5, 8), dtype=DataType.FLOAT)
    norm = RmsNorm("n", 1e-5, size=8, dtype=DataType.FLOAT)
    with Network() as net:
        out = linear(norm(Tensor("x", (3, 8), DataType.FLOAT)))
        net.mark_output(out, "y")
        engine = net.build_engine(backend="reference")
    x, w, b, g = torch.randn(3, 8), torch.randn(5, 8), torch.randn(5), torch.randn(8)
    engine.set_weights({"l.weight": w, "l.bias": b, "n.weight": g})
    y = engine.forward({"x": x})["y"]
    normed = torch.nn.functional.rms_norm(x, (8,), g, 1e-5)
    torch.testing.assert_close(y, torch.nn.functional.linear(normed, w, b))
