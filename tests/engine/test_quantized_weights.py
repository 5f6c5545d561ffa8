# SPDX-License-Identifier: Apache-2.0
"""Weights of 8 and 4 bits: what they hold, which ops may use them, and the same bits everywhere."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from atb_core.engine import get_backend
from atb_core.engine.base import Engine
from atb_core.engine.cpu import CpuBackend
from atb_core.engine.extension import load_extension
from atb_core.errors import EngineError
from atb_core.graph import DataType, Dim, Network, Tensor
from atb_core.graph.arrays import to_torch
from atb_core.graph.passes import run_passes
from atb_core.graph.quantized import QuantizedRows, quantizable_weights, quantized_values
from atb_core.names import QUANTIZATIONS
from atb_core.nn.functional import ActType, activation, gather, linear, split

N, K = 70, 96
TYPES = {DataType.FLOAT: torch.float32, DataType.BF16: torch.bfloat16, DataType.FLOAT16: torch.float16}


def network(dtype: DataType = DataType.FLOAT, k: int = K) -> Network:
    """Rows of a matrix, and the product with it: an embedding that is tied to the head."""
    with Network("tied") as net:
        weight = Tensor("weight", (N, k), dtype)
        net.mark_output(gather(weight, 0, Tensor("ids", (Dim("rows"),), DataType.INT64)), "rows")
        net.mark_output(linear(Tensor("x", (Dim("tokens"), k), dtype), weight, None, False, True), "y")
    net.weights_keys.add("weight")
    return net


def run(engine: Engine, x: torch.Tensor) -> dict[str, torch.Tensor]:
    return engine.forward({"ids": torch.arange(N), "x": x})


def values(rows: int, columns: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", TYPES, ids=lambda dtype: dtype.short)
@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_the_engine_stores_what_the_reference_says(quantization: str, dtype: DataType) -> None:
    for k in (96, 50):
        weight, x = values(N, k).to(TYPES[dtype]), values(5, k, 2).to(TYPES[dtype])
        engines = {name: get_backend(name).build(network(dtype, k)) for name in ("cpu", "reference")}
        for engine in engines.values():
            engine.quantize_weight("weight", weight, quantization)
        results = {name: run(engine, x) for name, engine in engines.items()}
        assert torch.equal(results["cpu"]["rows"], results["reference"]["rows"])
        assert torch.equal(results["cpu"]["rows"], quantized_values(weight, quantization))
        # Activations become integers of 8 bits, too: an error of up to 1 / 254 of a group's largest.
        difference = (results["cpu"]["y"] - results["reference"]["y"]).float()
        assert difference.norm() < 0.015 * results["reference"]["y"].float().norm()


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_levels_threads_and_batches_give_the_same_bits(quantization: str) -> None:
    weight, x = values(N, K).bfloat16(), values(9, K, 2).bfloat16()

    def y(isa: str, threads: int, rows: torch.Tensor) -> torch.Tensor:
        engine = CpuBackend(num_threads=threads, isa=isa, small_work=0).build(network(DataType.BF16))
        engine.quantize_weight("weight", weight, quantization)
        return run(engine, rows)["y"]

    expected = y("portable", 1, x)
    for isa in load_extension().supported_isas():
        assert torch.equal(y(isa, 2, x), expected), isa
        assert torch.equal(y(isa, 1, x[4:5]), expected[4:5]), isa


def test_a_quantised_weight_takes_its_bits_and_no_more() -> None:
    sizes = {}
    for quantization in (None, *QUANTIZATIONS):
        with Network("one") as net:
            weight = Tensor("weight", (256, 1024), DataType.BF16)
            net.mark_output(linear(Tensor("x", (Dim("tokens"), 1024), DataType.BF16), weight, None, False, True), "y")
        net.weights_keys.add("weight")
        engine = CpuBackend(num_threads=1).build(net)
        if quantization is None:
            engine.set_weights({"weight": torch.zeros(256, 1024, dtype=torch.bfloat16)})
        else:
            engine.quantize_weight("weight", values(256, 1024).bfloat16(), quantization)
        sizes[quantization] = engine.store.nbytes * 8 / (256 * 1024)
    assert sizes[None] == 16
    assert 8 <= sizes["int8"] < 8.1
    assert sizes["int4"] == 5


def q8_0(weight: torch.Tensor) -> QuantizedRows:
    """The format Q8_0: blocks of 32 elements with a float16 scale."""
    groups = weight.reshape(-1, 32)
    scales = (groups.abs().amax(1, keepdim=True) / 127).half()
    integers = (groups / scales.float()).round().clamp(-127, 127).to(torch.int8)
    blocks = torch.cat((scales.view(torch.uint8), integers.view(torch.uint8)), 1)
    return QuantizedRows("Q8_0", weight.shape[1], blocks.reshape(len(weight), -1).numpy())


def q4_0(weight: torch.Tensor) -> QuantizedRows:
    """The format Q4_0: the same with 4 bits."""
    groups = weight.reshape(-1, 32)
    scales = (groups.abs().amax(1, keepdim=True) / 7).half()
    q = ((groups / scales.float()).round().clamp(-8, 7) + 8).to(torch.uint8)
    blocks = torch.cat((scales.view(torch.uint8), q[:, :16] | q[:, 16:] << 4), 1)
    return QuantizedRows("Q4_0", weight.shape[1], blocks.reshape(len(weight), -1).numpy())


@pytest.mark.parametrize("sizes", [[70], [64, 6], [20, 31, 19]])
def test_pieces_of_a_matrix_may_have_different_formats(sizes: list[int]) -> None:
    weight, x = values(N, K), values(4, K, 2)
    formats: list[Callable[[torch.Tensor], QuantizedRows]] = [q8_0, q4_0, q8_0]
    parts = [make(rows) for make, rows in zip(formats, weight.split(sizes), strict=False)]
    engine = CpuBackend(num_threads=2).build(network())
    engine.set_weight_blocks("weight", parts)
    whole = run(engine, x)
    start = 0
    for part, size in zip(parts, sizes, strict=True):
        with Network("piece") as net:
            piece = Tensor("piece", (size, K), DataType.FLOAT)
            net.mark_output(linear(Tensor("x", (4, K), DataType.FLOAT), piece, None, False, True), "y")
        net.weights_keys.add("piece")
        alone = CpuBackend(num_threads=1).build(net)
        alone.set_weight_blocks("piece", [part])
        assert torch.equal(whole["y"][:, start : start + size], alone.forward({"x": x})["y"])
        start += size
    assert torch.allclose(whole["rows"], weight, atol=0.3)
    assert (whole["y"] - x @ whole["rows"].T).norm() < 0.015 * whole["y"].norm()


@pytest.mark.parametrize("how", ["int8", "int4", "halves", "formats", "pieces"])
def test_a_gate_in_the_products_has_the_bits_of_one_after_them(how: str) -> None:
    with Network("gated") as net:
        packed = linear(Tensor("x", (Dim("tokens"), K), DataType.BF16), Tensor("w", (128, K), DataType.BF16), None)
        net.mark_output(activation(packed, ActType.SWIGLU), "y")
    net.weights_keys.add("w")
    value, x = values(128, K), values(9, K, 2).bfloat16()
    top, rest = value.split([40, 88] if how == "pieces" else [64, 64])
    results = []
    for network in (run_passes(net, "cpu"), run_passes(net, "cpu", ["LinearSwiglu"])):
        engine = CpuBackend(num_threads=2).build(network)
        if how in QUANTIZATIONS:
            engine.quantize_weight("w", value.bfloat16(), how)
        else:
            engine.set_weight_blocks("w", [q4_0(top) if how == "formats" else q8_0(top), q8_0(rest)])
        results += [engine.forward({"x": x})["y"], engine.forward({"x": x[:1]})["y"]]
    assert torch.equal(results[0], results[2]) and torch.equal(results[1], results[3])


def test_a_split_product_reads_its_columns_of_the_pieces() -> None:
    with Network("merged") as net:
        weight, bias = Tensor("weight", (N, K), DataType.FLOAT), Tensor("bias", (N,), DataType.FLOAT)
        x = Tensor("x", (Dim("tokens"), K), DataType.FLOAT)
        y = linear(x, weight, bias, False, True)
        net.mark_output(y, "y")
        for i, part in enumerate(split(y, [33, 30, 7], 1)):
            net.mark_output(part * 1.0, f"part{i}")
    net.weights_keys |= {"weight", "bias"}
    engine = CpuBackend(num_threads=2).build(net)
    value = values(N, K)
    engine.set_weight_blocks("weight", [q4_0(value[:40]), q8_0(value[40:])])
    engine.set_weights({"bias": values(1, N, 3)[0]})
    for rows in (1, 3):
        results = engine.forward({"x": values(rows, K, 2)})
        parts = [results[f"part{i}"] for i in range(3)]
        assert torch.equal(torch.cat(parts, 1), results["y"])


def test_weights_that_ops_read_otherwise_are_not_quantizable() -> None:
    assert quantizable_weights(network()) == {"weight"}
    for make in (
        lambda x, w: linear(x, w, None, False, False),  # [k, n]
        lambda x, w: x * w,
        lambda x, w: gather(w, 1, Tensor("ids", (3,), DataType.INT64)),
    ):
        with Network("other") as net:
            net.mark_output(make(Tensor("x", (K, K), DataType.FLOAT), Tensor("weight", (K, K), DataType.FLOAT)), "y")
        net.weights_keys.add("weight")
        assert quantizable_weights(net) == set()
        engine = CpuBackend(num_threads=1).build(net)
        with pytest.raises(EngineError, match="weight 'weight' cannot be quantised: an op uses it otherwise"):
            engine.quantize_weight("weight", torch.ones(K, K), "int8")


def test_an_op_that_needs_the_plain_weight_gets_its_values() -> None:
    store = CpuBackend(num_threads=2).new_store()
    engine = CpuBackend(num_threads=2).build(network(), store)
    engine.quantize_weight("weight", values(N, K), "int8")
    before = run(engine, values(2, K, 2))
    with Network("plain") as net:
        net.mark_output(Tensor("weight", (N, K), DataType.FLOAT) * 1.0, "y")
    net.weights_keys.add("weight")
    plain = to_torch(CpuBackend(num_threads=2).build(net, store).forward({})["y"])
    assert torch.equal(plain, before["rows"])
    assert torch.equal(run(engine, values(2, K, 2))["rows"], plain)


def test_what_does_not_fit_is_refused_by_name() -> None:
    engine = CpuBackend(num_threads=1).build(network())
    with pytest.raises(EngineError, match="weight 'weight' cannot be quantised to Q4_0"):
        engine.quantize_weight("weight", torch.ones(N, K), "Q4_0")
    with pytest.raises(EngineError, match="'float3' is no format"):
        engine.quantize_weight("weight", torch.ones(N, K), "float3")
    for bad in (float("inf"), float("nan")):
        weight = values(N, K)
        weight[69, 95] = bad
        for quantization in QUANTIZATIONS:
            with pytest.raises(EngineError, match="weight 'weight' has values that are not finite"):
                engine.quantize_weight("weight", weight, quantization)
    with pytest.raises(EngineError, match="was given blocks of shape"):
        engine.set_weight_blocks("weight", [q8_0(values(N + 1, K))])
    short = QuantizedRows("Q8_0", K, np.zeros((N, 34 * 3 - 1), np.uint8))
    with pytest.raises(EngineError, match="bytes are not 70 rows of 96 elements in Q8_0"):
        engine.set_weight_blocks("weight", [short])
    with pytest.raises(EngineError, match="weight"):
        run(engine, values(2, K))


def test_a_weight_may_be_set_again_in_another_format() -> None:
    engine = CpuBackend(num_threads=2).build(network())
    x, weight = values(3, K, 2), values(N, K)
    engine.set_weights({"weight": weight})
    plain = run(engine, x)["y"]
    engine.quantize_weight("weight", weight, "int8")
    assert not torch.equal(run(engine, x)["y"], plain)
    engine.set_weight_blocks("weight", [q4_0(weight)])
    run(engine, x)
    engine.set_weights({"weight": weight})
    assert torch.equal(run(engine, x)["y"], plain)
