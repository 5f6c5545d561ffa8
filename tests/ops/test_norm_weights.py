# SPDX-License-Identifier: Apache-2.0
"""Norms of narrow rows take float32 weights: float32 inside, rounded once at the end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from atb_core.graph import DataType, Dim, Network, Tensor
from atb_core.graph.arrays import data_type
from atb_core.nn import functional as F

WIDTH = 37
Recorded = Callable[[Tensor, Tensor, Tensor], Tensor]


def added(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The addition and the norm become one op."""
    return F.rms_norm(x + x, weight, 1e-6)


NORMS: dict[str, Recorded] = {
    "rms_norm": lambda x, weight, bias: F.rms_norm(x, weight, 1e-6),
    "add_rms_norm": added,
    "layer_norm": lambda x, weight, bias: F.layer_norm(x, weight, bias, 1e-6),
}


def results(norm: Recorded, backend: str, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with Network("norm") as net:
        rows = Tensor("x", (Dim("rows"), WIDTH), data_type(inputs["x"].dtype))
        weights = [Tensor(n, (WIDTH,), data_type(inputs[n].dtype)) for n in ("weight", "bias")]
        net.mark_output(norm(rows, *weights), "y")
    used = {tensor.name for tensor in net.inputs}
    return net.build_engine(backend=backend).forward({n: v for n, v in inputs.items() if n in used})["y"]


def given(dtype: torch.dtype, weights: torch.dtype) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = (torch.randn(6, WIDTH, generator=generator) * 3 + 1).to(dtype)
    # Values that a narrow type would round.
    weight, bias = (1 + torch.randn(WIDTH, generator=generator) * 1e-3 for _ in range(2))
    return {"x": x, "weight": weight.to(weights), "bias": bias.to(weights)}


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_result_has_the_dtype_of_the_rows_and_is_rounded_once(norm: Recorded, dtype: torch.dtype) -> None:
    inputs = given(dtype, torch.float32)
    wide = results(norm, "reference", {n: v.float() for n, v in inputs.items()})
    for backend in ("reference", "cpu"):
        y = results(norm, backend, inputs)
        assert y.dtype == dtype
        # An addition in the narrow type rounds before the norm; elsewhere only the end does.
        steps = 2 if norm is added else 1
        bound = steps * {torch.bfloat16: 2**-8, torch.float16: 2**-11, torch.float32: 2e-6}[dtype]
        torch.testing.assert_close(y.float(), wide, rtol=bound, atol=bound / 4)


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_float32_weights_are_not_rounded_to_the_dtype_of_the_rows(norm: Recorded) -> None:
    inputs = given(torch.bfloat16, torch.float32)
    narrow = {n: v.bfloat16() for n, v in inputs.items()}
    for backend in ("reference", "cpu"):
        assert not torch.equal(results(norm, backend, inputs), results(norm, backend, narrow))


def test_layer_norm_is_torchs_for_rows_with_a_large_mean() -> None:
    x = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(2)) + 1000
    weight, bias = torch.linspace(-1, 2, WIDTH), torch.linspace(0, 3, WIDTH)
    inputs = {"x": x, "weight": weight, "bias": bias}
    expected = torch.nn.functional.layer_norm(x.double(), (WIDTH,), weight.double(), bias.double(), 1e-6).float()
    for backend in ("reference", "cpu"):
        y = results(NORMS["layer_norm"], backend, inputs)
        torch.testing.assert_close(y, expected, rtol=1e-3, atol=1e-3)


def test_a_batch_of_products_uses_weights_that_are_stored_packed() -> None:
    for transpose_b in (False, True):
        with Network("heads") as net:
            shape = (3, 18, 40) if transpose_b else (3, 40, 18)
            x = Tensor("x", (3, Dim("m"), 40), DataType.BF16)
            net.mark_output(F.batch_matmul(x, Tensor("w", shape, DataType.BF16), transpose_b), "y")
        net.weights_keys.add("w")
        engine = net.build_engine(backend="cpu")
        w = torch.randn(shape).bfloat16()
        engine.set_weights({"w": w})
        for m in (1, 7):
            rows = torch.randn(3, m, 40).bfloat16()
            expected = rows.float() @ (w.mT if transpose_b else w).float()
            torch.testing.assert_close(engine.forward({"x": rows})["y"].float(), expected, rtol=2**-8, atol=2**-5)
        assert engine.forward({"x": torch.empty(3, 0, 40).bfloat16()})["y"].shape == (3, 0, 18)
