# SPDX-License-Identifier: Apache-2.0
"""Linear layers: what they compute, what they take from a checkpoint, what they refuse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from small_model import small_config

from atb_core.errors import ConfigError
from atb_core.graph import DataType, Network, Tensor
from atb_core.layers.embedding.word_embedding import ParallelEmbedding
from atb_core.layers.linear.linear import (
    BaseLinear,
    ColumnParallelLinear,
    MergedColumnParallelLinear,
    ReplicatedLinear,
    RowParallelLinear,
)
from atb_core.nn.parameter import WeightSource

CONFIG = small_config().hf_config


class Shapes:
    """The part of a loader that constructors may use."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = shapes

    def shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[name]


def run(layer: Any, weights: Mapping[str, torch.Tensor], x: torch.Tensor) -> list[torch.Tensor]:
    with Network() as net:
        out = layer(Tensor("x", tuple(x.shape), DataType.FLOAT))
        for index, tensor in enumerate(out if isinstance(out, list) else [out]):
            net.mark_output(tensor, f"y{index}")
        engine = net.build_engine(backend="reference")
    engine.set_weights(weights)
    results = engine.forward({"x": x})
    return [results[f"y{index}"] for index in range(len(results))]


@pytest.mark.parametrize("cls", [ColumnParallelLinear, RowParallelLinear, ReplicatedLinear])
@pytest.mark.parametrize("bias", [False, True])
def test_in_one_process_every_kind_computes_the_same(cls: type[BaseLinear], bias: bool) -> None:
    layer = cls(CONFIG, None, "a.b", bias, in_features=6, out_features=4)
    w, b, x = torch.randn(4, 6), torch.randn(4), torch.randn(3, 6)
    weights = {"a.b.weight": w, **({"a.b.bias": b} if bias else {})}
    (y,) = run(layer, weights, x)
    torch.testing.assert_close(y, torch.nn.functional.linear(x, w, b if bias else None))


def test_packed_matrices_give_one_output_each() -> None:
    names = ["m.q", "m.k", "m.v"]
    layer = MergedColumnParallelLinear(CONFIG, None, names, True, in_features=6, out_features=[4, 2, 2])
    assert layer.weight.name == "m.q_k_v.weight"
    sizes = dict(zip(names, (4, 2, 2), strict=True))
    assert layer.weight.sources == tuple(WeightSource(f"{n}.weight", (s, 6)) for n, s in sizes.items())
    assert layer.bias.sources == tuple(WeightSource(f"{n}.bias", (s,)) for n, s in sizes.items())
    w, b, x = torch.randn(8, 6), torch.randn(8), torch.randn(3, 6)
    outputs = run(layer, {"m.q_k_v.weight": w, "m.q_k_v.bias": b}, x)
    expected = torch.nn.functional.linear(x, w, b).split([4, 2, 2], dim=-1)
    assert [tuple(y.shape) for y in outputs] == [(3, 4), (3, 2), (3, 2)]
    torch.testing.assert_close(outputs, list(expected))


def test_packed_output_can_be_left_whole() -> None:
    layer = MergedColumnParallelLinear(CONFIG, None, ["g", "u"], in_features=6, out_features=[4, 4])
    with Network():
        (packed,) = layer(Tensor("x", (3, 6), DataType.FLOAT), split_outputs=False)
    assert packed.shape == (3, 8)


def test_sizes_that_are_not_given_come_from_the_checkpoint() -> None:
    loader = Shapes({"a.weight": (4, 6), "b.weight": (2, 6)})
    layer = ColumnParallelLinear(CONFIG, loader, ["a", "b"])
    assert layer.weight.declared_shape == (6, 6)
    assert layer.out_sizes == [4, 2]


@pytest.mark.parametrize(
    ("loader", "arguments", "message"),
    [
        (None, {}, "sizes of a.weight are unknown"),
        (Shapes({"a.weight": (4, 6), "b.weight": (4, 5)}), {}, r"cannot be packed: their input sizes are \[6, 5\]"),
        (Shapes({"a.weight": (4,), "b.weight": (4,)}), {}, r"a\.weight has shape \[4\]"),
        (None, {"in_features": 6, "out_features": [1, 2, 3]}, "3 output sizes were given for 2 matrices"),
    ],
)
def test_sizes_that_cannot_be_are_refused(loader: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ColumnParallelLinear(CONFIG, loader, ["a", "b"], **arguments)


def test_a_tied_layer_has_no_weight_of_its_own() -> None:
    embedding = ParallelEmbedding(CONFIG, None, "embed")
    head = ColumnParallelLinear(CONFIG, None, "lm_head", tied_to=embedding.weight)
    assert head.weight is embedding.weight
    with pytest.raises(ConfigError, match="lm_head cannot share a weight"):
        ColumnParallelLinear(CONFIG, None, "lm_head", True, tied_to=embedding.weight)


def test_weights_have_the_models_element_type() -> None:
    config = CONFIG.replace(torch_dtype="bfloat16")
    assert ColumnParallelLinear(config, None, "a", in_features=2, out_features=3).weight.declared_dtype is DataType.BF16
