# SPDX-License-Identifier: Apache-2.0
"""Matrices of integers (W8A16, W4A16) on the simulated device: their products, the CPU engine's tokens, refusals."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import quant_files as files
import torch
from simulator.simulated import BACKENDS, SIM, assert_agree, counted, fault, greedy, open_runner, prompts, run_python

from atb_ascend.integers import joined, quantized
from atb_core.engine import get_backend
from atb_core.errors import EngineError
from atb_core.graph import DataType, Network, Tensor, record
from atb_core.graph.arrays import to_numpy, to_torch
from atb_core.graph.ops import Linear
from atb_core.graph.quantized import QuantizedRows, quantized_values
from atb_testing import tiny_checkpoint

HALVES = {DataType.FLOAT16: torch.float16, DataType.BF16: torch.bfloat16}
GROUPS = {"rows": 1, "groups of 32": 3}


def product(dtype: DataType, n: int, k: int, bias: bool = False) -> Network:
    with Network("product") as network:
        operands = [Tensor("x", (3, k), dtype), Tensor("w", (n, k), dtype)]
        operands += [Tensor("b", (n,), dtype)] * bias
        network.mark_output(record(Linear(has_bias=bias), operands)[0], "y")
    network.weights_keys |= {"w", "b"} if bias else {"w"}
    return network


def rows_of(integers: np.ndarray, scales: np.ndarray, zeros: np.ndarray, kind: str) -> QuantizedRows:
    blocks = np.concatenate([part.view(np.uint8) for part in (integers, scales, zeros)], 1)
    return QuantizedRows(kind, integers.shape[1], blocks)


@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("zeros", [False, True], ids=["symmetric", "offsets"])
@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)
@pytest.mark.parametrize("kind", ["INTEGERS4", "INTEGERS8"])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_a_product_is_that_of_the_values(dtype: DataType, kind: str, groups: int, zeros: bool, bias: bool) -> None:
    random = np.random.default_rng(0)
    low, high = (-8, 8) if kind == "INTEGERS4" else (-128, 128)
    integers = random.integers(low, high, (10, 96)).astype(np.int8)
    scales = (random.integers(1, 8, (10, groups)) / 256).astype(np.float32)
    shifts = random.integers(low, high, (10, groups)).astype(np.float32) * zeros
    engine = get_backend("atb-sim").build(product(dtype, 10, 96, bias))
    engine.set_weight_blocks("w", [rows_of(integers, scales, shifts, kind)])
    b = torch.randn(10).to(HALVES[dtype])
    engine.set_weights({"b": b} if bias else {})
    x = torch.randn(3, 96).to(HALVES[dtype])
    values = torch.from_numpy((integers - shifts.repeat(96 // groups, 1)) * scales.repeat(96 // groups, 1))
    expected = x.float() @ values.to(HALVES[dtype]).float().T + b.float() * bias
    torch.testing.assert_close(engine.forward({"x": x})["y"].float(), expected, rtol=1e-2, atol=1e-2)


def test_an_engine_follows_its_weight_from_floats_to_integers_and_back() -> None:
    engine = get_backend("atb-sim").build(product(DataType.FLOAT16, 4, 64))
    x, w = torch.ones(3, 64).half(), torch.full((4, 64), 0.5).half()
    engine.set_weights({"w": w})
    floats = engine.forward({"x": x})["y"]
    engine.quantize_weight("w", w, "int8")
    with counted() as made:
        integers = engine.forward({"x": x})["y"]
    assert made["creates"] > 0
    assert torch.equal(integers, floats)
    engine.set_weights({"w": 2 * w})
    assert torch.equal(engine.forward({"x": x})["y"], 2 * floats)
    with counted() as again:
        engine.forward({"x": x})
    assert (again["creates"], again["live_aclnn"]) == (0, 0)


@pytest.mark.parametrize("quantization", ["int8", "int4"])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_integers_are_as_close_as_those_of_the_other_engines(dtype: DataType, quantization: str) -> None:
    weight = torch.randn(7, 96, generator=torch.Generator().manual_seed(1)).to(HALVES[dtype])
    weight[0], weight[1, :32] = 0.0, 3.0  # groups whose elements are equal
    ours = quantized(to_numpy(weight), dtype, quantization)
    assert (ours.bits, ours.group) == ((8, 0) if quantization == "int8" else (4, 32))
    error = (to_torch(ours.values()).float() - weight.float()).abs()
    other = (quantized_values(weight, quantization).float() - weight.float()).abs()
    assert error.mean() < 1.1 * other.mean()
    assert error[0].max() == 0
    assert error[1, :32].max() == 0


def test_pieces_of_several_formats_become_the_widest_integers_in_the_smallest_groups() -> None:
    integers = np.arange(-8, 8, dtype=np.int8).repeat(8).reshape(2, 64)
    one, two = np.ones((2, 1), np.float32), np.full((2, 2), 2, np.float32)
    whole = joined(
        [rows_of(integers, one, 0 * one, "INTEGERS4"), rows_of(integers, two, two, "INTEGERS8")], DataType.FLOAT16
    )
    assert (whole.bits, whole.group, whole.shape) == (8, 32, (4, 64))
    expected = np.concatenate([integers.astype(np.float32), (integers - 2.0) * 2])
    np.testing.assert_array_equal(whole.values().astype(np.float32), expected)


@pytest.mark.parametrize("dtype", HALVES.values(), ids=str)
@pytest.mark.parametrize(
    ("family", "quantization"), [("qwen2", "int8"), ("qwen2", "int4"), ("qwen2_moe", "int8"), ("qwen3_moe", None)]
)
def test_a_model_gives_the_cpu_engines_tokens(
    family: str, quantization: str | None, dtype: torch.dtype, tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32} if "moe" in family else {}
    tiny_checkpoint(tmp_path, family, dtype, max_position_embeddings=256, **experts)
    runs = []
    for backend in BACKENDS:
        with open_runner(tmp_path, backend, quantization=quantization) as runner:
            runs.append(runner.generate(prompts((5, 1, 40)), greedy(6)))
    assert_agree(runs[1], runs[0])


CHECKPOINTS: dict[str, tuple[str, torch.dtype, files.Packer, dict[str, Any] | None, dict[str, Any] | None]] = {
    "gptq": ("qwen2", torch.bfloat16, files.gptq(), {"quant_method": "gptq", "bits": 4, "group_size": 32}, None),
    "gptq, rows": (
        "qwen3",
        torch.float16,
        files.gptq(8, -1, False),
        {"quant_method": "gptq", "bits": 8, "group_size": -1},
        None,
    ),
    "awq": ("llama", torch.float16, files.awq(), {"quant_method": "awq", "bits": 4, "group_size": 32}, None),
    "compressed-tensors": (
        "qwen3",
        torch.bfloat16,
        files.pack_quantized(4, 32, False),
        files.compressed_config(4, "int", "group", "pack-quantized", group_size=32, symmetric=False),
        None,
    ),
    "W8A16": ("qwen2", torch.float16, files.slim_dynamic, None, {"model_quant_type": "W8A16", "version": "1.0.0"}),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_of_integers_stays_so_and_gives_the_cpu_engines_tokens(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("transformers")
    family, dtype, *how = CHECKPOINTS[name]
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 16}
    source = tiny_checkpoint(tmp_path / "source", family, dtype, **sizes)
    directory, _ = files.quantise_directory(source, tmp_path / "quantised", *how)
    with open_runner(directory, "cpu") as runner:
        expected = runner.generate(prompts((5, 40)), greedy(4))
    caplog.clear()
    SIM.set_logging(True)
    with open_runner(directory) as runner:
        assert_agree(runner.generate(prompts((5, 40)), greedy(4)), expected)
    # Queries, keys and values; their output; gate and up; down: of two layers, in four steps.
    calls = [call for call in SIM.call_log() if call == "aclnnWeightQuantBatchMatmulV2"]
    SIM.set_logging(False)
    assert len(calls) == 4 * 8
    assert "expanded" not in caplog.text


def test_experts_of_integers_are_expanded_which_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("transformers")
    sizes = {"hidden_size": 64, "num_hidden_layers": 1, "head_dim": 16}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    source = tiny_checkpoint(tmp_path / "source", "qwen3_moe", torch.float16, **sizes, **experts)
    method = {"quant_method": "gptq", "bits": 4, "group_size": 32}
    directory, _ = files.quantise_directory(source, tmp_path / "quantised", files.gptq(), method)
    with open_runner(directory):
        pass
    # Gate, up and down of each expert, of all matrices with the four of attention.
    assert "12 of 16 matrices of gptq are expanded to float16" in caplog.text
    assert "model.layers.0.mlp.experts.0." in caplog.text


def test_matrices_that_the_call_does_not_take_stay_floats_and_are_named(caplog: pytest.LogCaptureFixture) -> None:
    engine = get_backend("atb-sim").build(product(DataType.FLOAT16, 3, 65536))
    w = torch.ones(3, 65536).half() / 65536
    with caplog.at_level(logging.WARNING):
        engine.quantize_weight("w", w, "int8")
    assert "weight 'w' stays float16: Atlas A2 does not multiply by integers of 8 bits" in caplog.text
    torch.testing.assert_close(engine.forward({"x": torch.ones(3, 65536).half()})["y"], torch.ones(3, 3).half())


def test_scales_that_the_dtype_cannot_hold_expand_their_matrix(caplog: pytest.LogCaptureFixture) -> None:
    integers = np.full((4, 64), 100, np.int8)
    scales, zeros = np.full((4, 1), 2.0**-23, np.float32), np.zeros((4, 1), np.float32)
    scales[0] = 1.4 * 2.0**-24
    engine = get_backend("atb-sim").build(product(DataType.FLOAT16, 4, 64))
    with caplog.at_level(logging.WARNING):
        engine.set_weight_blocks("w", [rows_of(integers, scales, zeros, "INTEGERS8")])
    assert "weight 'w' stays float16: it cannot hold the scales" in caplog.text
    expected = torch.from_numpy(6400 * scales.T.repeat(3, 0))
    torch.testing.assert_close(
        engine.forward({"x": torch.ones(3, 64).half()})["y"].float(), expected, rtol=1e-2, atol=0
    )


DUO = """
import numpy as np
from atb_core import AtbError
from atb_core.engine import get_backend
from atb_core.graph import DataType, Network, Tensor, record
from atb_core.graph.ops import Linear

with Network("product") as network:
    operands = [Tensor(name, (64, 64), DataType.FLOAT16) for name in ("x", "w")]
    network.mark_output(record(Linear(), operands)[0], "y")
network.weights_keys.add("w")
engine = get_backend("atb-sim").build(network)
ones = np.ones((64, 64), np.float16)
engine.quantize_weight("w", ones, "int8")
bytes_of_integers = engine.store.handle.info("w")["bytes"]
print(engine.forward({"x": ones})["y"].min(), bytes_of_integers)
try:
    engine.quantize_weight("w", ones, "int4")
except AtbError as error:
    print(error, sorted(engine.store.backend.block_formats))
"""


def test_a_300i_duo_has_integers_of_8_bits_and_refuses_others_by_name() -> None:
    first, second = run_python(DUO, ATB_SIM_SOC="Ascend310P3").splitlines()
    assert first == f"64.0 {64 * 64 + 64 * 2}"
    assert second == "weight 'w': Atlas 300I Duo has no int4. It has int8. []"


TOKENS = """
import sys
from atb_core import ModelRunner, SamplingParams

sampling = SamplingParams(max_tokens=4, ignore_eos=True)
for backend in ("cpu", "atb-sim"):
    options = {"load_tokenizer": False, "max_model_len": 64, "quantization": "int8", "num_threads": 2}
    with ModelRunner(sys.argv[1], backend=backend, **options) as runner:
        print(runner.generate([[3, 1, 4, 1, 5]], sampling)[0].token_ids)
"""


def test_a_model_of_8_bits_gives_the_cpu_engines_tokens_on_a_300i_duo(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path, "qwen2", torch.float16, max_position_embeddings=256)
    script = TOKENS.replace("sys.argv[1]", repr(str(tmp_path)))
    ours, theirs = run_python(script, ATB_SIM_SOC="Ascend310P3").splitlines()
    assert ours == theirs


@pytest.mark.parametrize(
    ("call", "match"),
    [
        ("aclnnWeightQuantBatchMatmulV2GetWorkspaceSize", "cannot prepare"),
        ("aclnnWeightQuantBatchMatmulV2", "cannot launch"),
    ],
)
def test_a_call_that_fails_is_told_and_leaves_nothing_behind(call: str, match: str) -> None:
    engine = get_backend("atb-sim").build(product(DataType.FLOAT16, 4, 64))
    engine.quantize_weight("w", torch.ones(4, 64).half(), "int8")
    x = torch.ones(3, 64).half()
    with (
        counted() as made,
        fault(SIM.inject, call, 0, 161002),
        pytest.raises(EngineError, match=rf"{match} .*: ERROR_CANN_ERROR \(12\)"),
    ):
        engine.forward({"x": x})
    assert made["live_aclnn"] == 0
    assert torch.equal(engine.forward({"x": x})["y"], torch.full((3, 4), 64.0).half())
