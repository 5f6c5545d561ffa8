# SPDX-License-Identifier: Apache-2.0
"""A quantised checkpoint computes what Hugging Face's implementation does with its values."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import quant_files as files
import torch

from atb_core import ModelRunner, SamplingParams
from atb_core.checkpoint import open_checkpoint
from atb_core.errors import WeightsError
from atb_testing import load_reference, tiny_checkpoint
from atb_testing.driver import PagedDriver, open_model

pytest.importorskip("transformers")

PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8]]
SHORT = SamplingParams(max_tokens=24)
SLIM: Callable[[str], dict[str, Any]] = lambda kind: {"model_quant_type": kind, "version": "1.0.0"}  # noqa: E731
INT8 = files.compressed_config(8, "int", "channel", "int-quantized", symmetric=True)
CASES: dict[str, tuple[str, files.Packer, dict[str, Any] | None, dict[str, Any] | None]] = {
    "gptq": ("qwen2", files.gptq(), {"quant_method": "gptq", "bits": 4, "group_size": 32}, None),
    "awq": ("llama", files.awq(), {"quant_method": "awq", "bits": 4, "group_size": 32}, None),
    "compressed-tensors": ("qwen3", files.int_quantized(), INT8, None),
    "fp8": ("qwen3", files.fp8_blocks, {"quant_method": "fp8", "weight_block_size": [16, 32]}, None),
    "W8A8_DYNAMIC": ("qwen2", files.slim_dynamic, None, SLIM("W8A8_DYNAMIC")),
    "W8A8": ("llama", files.slim_static, None, SLIM("W8A8")),
    "W4A16": ("llama", files.slim_packed(), None, {**SLIM("W4A16"), "group_size": 0}),
    "W4A16 in groups": ("qwen2", files.slim_packed(32, symmetric=False), None, {**SLIM("W4A16"), "group_size": 32}),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    root = tmp_path_factory.mktemp("quantised")

    @cache
    def source(family: str) -> Path:
        sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 16}
        return tiny_checkpoint(root / family, family, **sizes)

    @cache
    def make(case: str) -> tuple[Path, Path]:
        family, pack, config, description = CASES[case]
        return files.quantise_directory(source(family), root / case, pack, config, description)

    return make


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_the_values(case: str, made: Callable[[str], tuple[Path, Path]]) -> None:
    quantised, plain = made(case)
    tokens = [token for prompt in PROMPTS for token in prompt]
    with torch.no_grad():
        reference = load_reference(plain)
        expected = torch.cat([reference(torch.tensor([prompt])).logits[0] for prompt in PROMPTS])
    logits = PagedDriver(open_model(quantised), len(PROMPTS)).prefill(PROMPTS)
    assert len(expected) == len(tokens)
    assert torch.allclose(logits, expected, atol=2e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("case", CASES)
def test_the_cpu_engine_generates_the_same_in_every_batch(case: str, made: Callable[[str], tuple[Path, Path]]) -> None:
    quantised, plain = made(case)
    with ModelRunner(quantised, load_tokenizer=False) as runner, ModelRunner(plain, load_tokenizer=False) as floats:
        together = [o.outputs[0].token_ids for o in runner.generate(PROMPTS, SHORT)]
        alone = [runner.generate([prompt], SHORT)[0].outputs[0].token_ids for prompt in PROMPTS]
        smaller = runner.model.variants.store.nbytes < 0.75 * floats.model.variants.store.nbytes
    assert together == alone
    assert smaller == (case != "fp8")


def test_a_shift_against_outliers_is_taken_back_by_biases(
    made: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    """The norm adds a bias, and the matrices that read it a bias that undoes it."""
    from safetensors.torch import load_file, save_file

    directory, plain = files.quantise_directory(
        made("W8A8_DYNAMIC")[1], tmp_path / "shifted", files.slim_dynamic, None, SLIM("W8A8_DYNAMIC")
    )
    tensors = load_file(directory / "quant_model_weights.safetensors")
    values = load_file(plain / "model.safetensors")
    for layer in range(2):
        prefix = f"model.layers.{layer}"
        shift = torch.randn(64, generator=torch.Generator().manual_seed(layer))
        tensors[f"{prefix}.post_attention_layernorm.bias"] = shift
        for name in ("gate_proj", "up_proj"):
            tensors[f"{prefix}.mlp.{name}.bias"] = -values[f"{prefix}.mlp.{name}.weight"] @ shift
    save_file(tensors, directory / "quant_model_weights.safetensors")
    logits = [PagedDriver(open_model(path), 1).prefill(PROMPTS[:1]) for path in (directory, plain)]
    assert torch.allclose(*logits, atol=1e-4 * float(logits[1].abs().max()))


def test_a_checkpoint_says_its_scheme(made: Callable[[str], tuple[Path, Path]]) -> None:
    assert open_checkpoint(made("gptq")[0]).quantization() == "gptq"
    assert open_checkpoint(made("W8A8")[0]).quantization() == "msmodelslim"
    assert open_checkpoint(made("W8A8")[1]).quantization() is None
    assert open_checkpoint(made("gptq")[0]).stored_types()["int32"] > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kv_quant_type": "C8"}, "setting 'kv_quant_type' is not supported: C8"),
        (
            {"model.layers.0.mlp.up_proj.weight": "W4A8_DYNAMIC"},
            "is of type 'W4A8_DYNAMIC', which is none of FLOAT",
        ),
        ({"model.layers.0.mlp.up_proj.weight": "FLOAT"}, "does not say of what type model.layers.0.mlp.up_proj.weight"),
    ],
)
def test_descriptions_that_are_not_supported_are_refused_by_name(
    change: dict[str, str], message: str, made: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    import json
    import shutil

    directory = shutil.copytree(made("W8A8")[0], tmp_path / "model")
    path = directory / "quant_model_description.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **change}), encoding="utf-8")
    with pytest.raises(WeightsError, match=message):
        open_checkpoint(directory).weights()
