# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that say so run with activations of 8 bits, by the scales that they have."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from integer_files import CASES, OFFSET, SCALE, Case, open_integers, slow_logits
from quant_files import slim_dynamic
from safetensors.torch import load_file, save_file

from atb_core import ModelRunner, SamplingParams
from atb_core.errors import GraphError, WeightsError
from atb_core.graph import DataType, Network, Tensor
from atb_core.graph.ops import ActivationType
from atb_core.nn import quantized as Q
from atb_core.nn.functional import activation, linear
from atb_testing.driver import PagedDriver

pytest.importorskip("transformers")

PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8]]
SHORT = SamplingParams(max_tokens=24)
ENGINES = ("reference", "cpu")
FLOAT = DataType.FLOAT
Made = Callable[[str], tuple[Path, Path]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("integers")

    @cache
    def make(name: str) -> tuple[Path, Path]:
        directory = root / str(list(CASES).index(name))
        directory.mkdir()
        return CASES[name].write(directory)

    return make


def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = PagedDriver(model, len(PROMPTS)).prefill(PROMPTS).float()
    return found


@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_a_model_that_rounds_its_activations(name: str, made: Made) -> None:
    quantised, plain = made(name)
    expected = slow_logits(plain, CASES[name].static, PROMPTS)
    bound = 0.01 * float(expected.abs().max())  # an activation that is rounded the other way moves a logit by less
    for engine in ENGINES:
        assert torch.allclose(logits(open_integers(quantised, engine)), expected, atol=bound)
    if CASES[name].static:
        assert not torch.allclose(logits(open_integers(quantised, "cpu", integers=False)), expected, atol=bound)


@pytest.mark.parametrize("name", CASES)
def test_a_runner_gives_the_same_tokens_in_every_batch_and_stores_bytes(name: str, made: Made) -> None:
    quantised, plain = made(name)
    with ModelRunner(quantised, load_tokenizer=False) as runner, ModelRunner(plain, load_tokenizer=False) as floats:
        together = [o.outputs[0].token_ids for o in runner.generate(PROMPTS, SHORT)]
        alone = [runner.generate([prompt], SHORT)[0].outputs[0].token_ids for prompt in PROMPTS]
        ops = {node.op.name for node in runner.model.variants.get("decode").engine.network.nodes}
        assert runner.model.variants.store.nbytes < 0.75 * floats.model.variants.store.nbytes
    assert together == alone
    assert ops >= {"QuantLinear", "QuantPerChannel" if CASES[name].static else "DynamicQuant"}


def test_a_dtype_expands_the_matrices_and_leaves_activations_floats(made: Made) -> None:
    with ModelRunner(made("W8A8")[0], load_tokenizer=False, dtype="float32") as runner:
        ops = {node.op.name for node in runner.model.variants.get("decode").engine.network.nodes}
    assert "QuantLinear" not in ops


def test_a_shift_against_outliers_is_rounded_with_the_activations(tmp_path: Path) -> None:
    """The norm adds a bias before the rounding, and the matrices that read it take it back."""
    directory, plain = CASES["W8A8_DYNAMIC"].write(tmp_path)
    shifts = [torch.randn(64, generator=torch.Generator().manual_seed(layer)) for layer in range(2)]
    tensors, values = (load_file(path) for path in (
        directory / "quant_model_weights.safetensors", plain / "model.safetensors"))  # fmt: skip
    for layer, shift in enumerate(shifts):
        prefix = f"model.layers.{layer}"
        tensors[f"{prefix}.post_attention_layernorm.bias"] = shift
        for name in ("gate_proj", "up_proj"):
            tensors[f"{prefix}.mlp.{name}.bias"] = -values[f"{prefix}.mlp.{name}.weight"] @ shift
    save_file(tensors, directory / "quant_model_weights.safetensors")

    def shifted(model: Any) -> None:
        for layer, shift in zip(model.model.layers, shifts, strict=True):
            layer.post_attention_layernorm.register_forward_hook(lambda _, x, y, shift=shift: y + shift)
            for each in (layer.mlp.gate_proj, layer.mlp.up_proj):
                undone = each.weight @ shift
                each.register_forward_hook(lambda _, x, y, undone=undone: y - undone)

    expected = slow_logits(plain, False, PROMPTS, shifted)
    for engine in ENGINES:
        assert torch.allclose(logits(open_integers(directory, engine)), expected, atol=0.01 * expected.abs().max())


def test_packed_matrices_whose_inputs_have_several_scales_stay_floats(tmp_path: Path) -> None:
    directory, _ = CASES["W8A8"].write(tmp_path)
    path = directory / "quant_model_weights.safetensors"
    tensors = load_file(path)
    tensors["model.layers.0.self_attn.k_proj.input_scale"] *= 2
    save_file(tensors, path)
    model = open_integers(directory, "cpu")
    first, second = (layer.self_attn for layer in model.model.layers)
    assert first.qkv.method is None
    assert second.qkv.method is not None and first.dense.method is not None


@pytest.mark.parametrize(("part", "value"), [("input_offset", 0.5), ("input_offset", 200.0), ("input_scale", 1e-9)])
def test_scales_that_no_integers_can_be_made_by_are_refused_with_the_matrix(
    part: str, value: float, tmp_path: Path
) -> None:
    directory, _ = CASES["W8A8"].write(tmp_path)
    path = directory / "quant_model_weights.safetensors"
    tensors = load_file(path)
    tensors[f"model.layers.1.mlp.down_proj.{part}"][:] = value
    save_file(tensors, path)
    with pytest.raises(WeightsError, match=r"model\.layers\.1\.mlp\.down_proj has activations with the scale"):
        open_integers(directory, "cpu", torch_dtype="float16")


def run(
    record: Callable[..., Tensor], inputs: dict[str, torch.Tensor], dtypes: list[DataType], engine: str,
    without: list[str] | None = None,
) -> Any:  # fmt: skip
    with Network() as net:
        given = [Tensor(n, tuple(v.shape), t) for (n, v), t in zip(inputs.items(), dtypes, strict=True)]
        net.mark_output(record(*given), "y")
    built = net.build_engine(without, backend=engine)
    sums = [node for node in built.network.nodes if getattr(node.op, "out_dtype", None) is DataType.INT32]
    assert bool(sums) == bool(without)  # the passes make one product of a chain
    return built.forward(inputs)["y"]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("out", [DataType.FLOAT, DataType.BF16])
def test_the_functions_of_the_original_compose_to_the_bits_of_the_product(out: DataType, engine: str) -> None:
    generator = np.random.default_rng(3)
    x = torch.from_numpy(generator.normal(size=(5, 150)).astype(np.float32))
    weight = torch.from_numpy(generator.integers(-128, 128, (33, 150)).astype(np.int8))
    scale = torch.from_numpy((generator.random(33) / 100).astype(np.float32))
    bias = torch.from_numpy(generator.integers(-5000, 5000, 33).astype(np.int32))
    inputs = {"x": x, "s": torch.tensor([SCALE]), "o": torch.tensor([OFFSET], dtype=torch.int8), "w": weight,
              "d": scale, "b": bias}  # fmt: skip
    dtypes = [DataType.FLOAT, DataType.FLOAT, DataType.INT8, DataType.INT8, DataType.FLOAT, DataType.INT32]

    def static(x: Tensor, s: Tensor, o: Tensor, w: Tensor, d: Tensor, b: Tensor) -> Tensor:
        return Q.dequantize(linear(Q.quantize_per_channel(x, s, o), w), d, out, bias=b)

    def fused(x: Tensor, s: Tensor, o: Tensor, w: Tensor, d: Tensor, b: Tensor) -> Tensor:
        return Q.quantized_linear(Q.quantize_per_channel(x, s, o), w, d, out, bias=b)

    q = np.clip(np.rint(x.numpy() / SCALE + np.float32(OFFSET)), -128, 127).astype(np.int64)
    sums = (q @ weight.numpy().T.astype(np.int64) + bias.numpy()).astype(np.float32)
    exact = torch.from_numpy(sums * scale.numpy())
    for record, without in ((static, ["All"]), (static, None), (fused, None)):
        y = run(record, inputs, dtypes, engine, without)
        assert torch.equal(y, exact.to(y.dtype))

    def dynamic(x: Tensor, w: Tensor, d: Tensor) -> Tensor:
        values, token = Q.quantize_per_token(x)
        return Q.dequantize(linear(values, w), d, out, token)

    token = np.abs(x.numpy()).max(1, keepdims=True) / np.float32(127)
    sums = (np.rint(x.numpy() / token).astype(np.int64) @ weight.numpy().T.astype(np.int64)).astype(np.float32)
    for without in (["All"], None):
        dtypes = [DataType.FLOAT, DataType.INT8, DataType.FLOAT]
        y = run(dynamic, {n: inputs[n] for n in "xwd"}, dtypes, engine, without)
        assert torch.equal(y, torch.from_numpy(sums * scale.numpy() * token).to(y.dtype))


@pytest.mark.parametrize("rows", [2, 70])  # few rows wait for weights, and have the activation behind the product
@pytest.mark.parametrize("kind", ["scales", "token", "bias"])
def test_a_gate_is_finished_in_the_product_of_integers_with_the_same_bits(kind: str, rows: int) -> None:
    def integers(*shape: int) -> torch.Tensor:
        return torch.randint(-128, 128, shape, generator=torch.Generator().manual_seed(1), dtype=torch.int8)

    inputs = {"x": integers(rows, 96), "w": integers(128, 96), "d": torch.full((128,), 1e-5)}
    inputs |= {"token": {"t": torch.linspace(0.5, 2, rows)}, "bias": {"b": integers(128).int() * 99}}.get(kind, {})
    dtypes = [DataType.INT8, DataType.INT8, FLOAT, DataType.INT32 if kind == "bias" else FLOAT]

    def gated(x: Tensor, w: Tensor, d: Tensor, *other: Tensor) -> Tensor:
        named: dict[str, Tensor] = dict(zip(["bias" if kind == "bias" else "token_scale"], other, strict=False))
        return activation(Q.quantized_linear(x, w, d, DataType.BF16, **named), ActivationType.SWIGLU)

    with Network() as net:
        given = [Tensor(n, tuple(v.shape), t) for (n, v), t in zip(inputs.items(), dtypes, strict=False)]
        net.mark_output(gated(*given), "y")
    engines = [net.build_engine(without, backend="cpu") for without in (None, ["QuantLinearSwiglu"])]
    assert [len(engine.network.nodes) for engine in engines] == [1, 2]
    together, apart = (engine.forward(inputs)["y"] for engine in engines)
    assert torch.equal(together, apart)


def test_sums_that_are_used_elsewhere_are_not_fused_away() -> None:
    with Network() as net:
        x, w, d = Tensor("x", (2, 32), DataType.INT8), Tensor("w", (4, 32), DataType.INT8), Tensor("d", (4,), FLOAT)
        sums = linear(x, w)
        net.mark_output(Q.dequantize(sums, d, FLOAT), "y")
        net.mark_output(sums, "sums")
    names = [node.op.name for node in net.build_engine(backend="reference").network.nodes]
    assert names == ["QuantLinear", "Cast", "Elewise", "Cast"]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_row_that_is_not_finite_gives_a_row_that_is_none(engine: str) -> None:
    x = torch.ones(3, 32)
    x[1, 5], x[2, 7] = float("inf"), float("nan")
    inputs = {"x": x, "w": torch.ones(4, 32, dtype=torch.int8), "d": torch.ones(4)}

    def product(x: Tensor, w: Tensor, d: Tensor) -> Tensor:
        values, token = Q.quantize_per_token(x)
        return Q.quantized_linear(values, w, d, DataType.FLOAT, token)

    y = run(product, inputs, [DataType.FLOAT, DataType.INT8, DataType.FLOAT], engine)
    assert torch.equal(y[0], torch.full((4,), 32.0)) and y[1:].isnan().all()


def test_dequantize_refuses_bits_of_scales_and_quantized_linear_integers_as_result() -> None:
    x, bits = Tensor("x", (2, 4), DataType.INT32), Tensor("d", (4,), DataType.INT64)
    with Network(), pytest.raises(GraphError, match="floats as weight_scale, not int64"):
        Q.dequantize(x, bits, DataType.FLOAT16)
    with Network(), pytest.raises(GraphError, match="gives floats, not int32"):
        Q.quantized_linear(x, x, bits, DataType.INT32)


def test_the_names_of_the_original_lead_to_the_methods() -> None:
    from atb_core.layers import InferenceMode
    from atb_quant.linear_method import LINEAR_METHOD_ROUTER, QuantTypeV3

    found = {kind.value: modes[InferenceMode.ANY].__name__ for kind, modes in LINEAR_METHOD_ROUTER.items()}
    assert found == {
        "W8A8": "W8A8PerTensorLinearMethod",
        "W8A8_DYNAMIC": "W8A8PerTokenLinearMethod",
        "W8A8_MIX": "W8A8MixLinearMethod",
    }
    assert QuantTypeV3("W8A8") in LINEAR_METHOD_ROUTER


@pytest.mark.parametrize("kind", ["W8A16", "W4A16"])
def test_types_with_activations_of_16_bits_leave_them_floats(kind: str, tmp_path: Path) -> None:
    def few_bits(weight: np.ndarray) -> Any:
        tensors, _ = slim_dynamic(weight)
        scales = np.abs(weight).max(1, keepdims=True) / 7
        integers = np.clip(np.rint(weight / scales), -8, 7).astype(np.int8)
        return {**tensors, "weight": integers, "weight_scale": scales}, (scales * integers).astype(np.float32)

    case = Case("llama", slim_dynamic if kind == "W8A16" else few_bits, False, kind=kind)
    quantised, plain = case.write(tmp_path)
    path = quantised / "quant_model_description.json"  # without a version, an integer of 4 bits has a byte
    path.write_text(path.read_text(encoding="utf-8").replace('"version": "1.0.0", ', ""), encoding="utf-8")
    model = open_integers(quantised, "reference")
    assert model.model.layers[0].self_attn.qkv.method is None
    assert torch.allclose(logits(model), logits(open_integers(plain, "reference")), atol=1e-4)
