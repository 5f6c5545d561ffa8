# SPDX-License-Identifier: Apache-2.0
"""`atb verify` tells a right model from a wrong one, and where the wrong one begins to differ."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import quant_files as files
import torch
from safetensors.torch import load_file, save_file

from atb_cli import main
from atb_core.errors import BackendUnavailableError
from atb_testing import tiny_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny"), "qwen2", torch.bfloat16)


def verified(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(["verify", *arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_a_right_model_passes_on_both_engines(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--backend", "cpu", "--backend", "reference", "--tokens", "4", "--json")
    status, out, err = verified(capsys, str(checkpoint), *options)
    result = json.loads(out)
    assert status == 0
    assert result["passed"] is True
    assert set(result["reports"]) == {"cpu", "reference"}
    assert result["reports"]["cpu"]["torch_max"] > 0
    assert (result["dtype"], result["tokens"]) == ("bfloat16", 4)
    assert "comparing takes about" in err


def test_a_backend_that_cannot_be_used_is_refused_before_anything_is_computed(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def computed(*_: object) -> None:
        raise AssertionError("Hugging Face's logits were computed")

    monkeypatch.setattr("atb_testing.verify.Oracle.of", computed)

    def no_card(*_: object, **__: object) -> None:
        raise BackendUnavailableError("no card")

    monkeypatch.setattr("atb_ascend.backend.AtbBackend.__init__", no_card)
    status, out, err = verified(capsys, str(checkpoint), "--backend", "reference", "--backend", "atb")
    assert (status, out) == (1, "")
    assert "error: no card" in err


def test_a_wrong_model_fails_and_the_module_is_named(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from atb_core.layers.attention.attention import Attention

    right = Attention.__init__

    def wrong(self: Any, *args: Any, **kwargs: Any) -> None:
        right(self, *args, **kwargs)
        self.scale *= 2

    monkeypatch.setattr(Attention, "__init__", wrong)
    status, out, err = verified(capsys, str(checkpoint), "--tokens", "0")
    assert status == 1
    assert "TOO LARGE" in out
    assert "model.layers.0.self_attn" in out
    assert "differs from Hugging Face's by more than rounding" in err


WINDOW = {"use_sliding_window": True, "sliding_window": 40, "max_window_layers": 1}


def test_prompts_are_longer_than_a_window_and_decode_crosses_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_checkpoint(tmp_path, "qwen2", **WINDOW)
    status, out, _ = verified(capsys, str(tmp_path), "--tokens", "0")
    assert status == 0
    assert "prompts of 1, 7, 33, 18, 38, 43 tokens" in out
    status, out, _ = verified(capsys, str(tmp_path), "--tokens", "0", "--longest", "35")
    assert "NOT tested: what changes at 40 tokens (--longest)" in out


def test_a_model_without_its_window_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from atb_core.models.base.window_config import WindowConfig

    tiny_checkpoint(tmp_path, "qwen2", **WINDOW)
    monkeypatch.setattr(WindowConfig, "window_of", lambda self, layer_idx: None)
    status, out, _ = verified(capsys, str(tmp_path), "--tokens", "0")
    assert status == 1
    assert "model.layers.1.self_attn" in out


@pytest.mark.parametrize(
    ("model_type", "message"),
    [("nobody_knows_me", "no installed package serves"), (None, "names no model_type")],
)
def test_a_model_that_cannot_be_compared_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model_type: str | None, message: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type, "dtype": "float32"}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    status, out, err = verified(capsys, str(tmp_path))
    assert (status, out) == (1, "")
    assert message in err


def test_a_quantised_checkpoint_is_compared_by_its_values_and_its_blocks_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tiny_checkpoint(tmp_path / "source", "qwen2", torch.bfloat16, intermediate_size=128)
    settings = {"quant_method": "gptq", "bits": 4, "group_size": 32}
    quantised, _ = files.quantise_directory(source, tmp_path / "gptq", files.gptq(), settings)
    options = ("--backend", "cpu", "--backend", "reference", "--tokens", "4")
    status, out, err = verified(capsys, str(quantised), *options)
    assert status == 0
    assert "quantised by gptq: Hugging Face gets the values of its matrices in bfloat16" in err
    lost = {
        name: float(mean) for name, mean in re.findall(r"(\w+) as it runs gptq without a dtype: mean ([\d.e-]+);", out)
    }
    assert lost["cpu"] > lost["reference"] > 0


def test_a_wrong_reader_of_quantised_matrices_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from atb_quant.loader import QuantLoader

    source = tiny_checkpoint(tmp_path / "source", "llama")
    settings = {"quant_method": "gptq", "bits": 4, "group_size": 32}
    quantised, _ = files.quantise_directory(source, tmp_path / "gptq", files.gptq(), settings)
    right = QuantLoader.read_into
    monkeypatch.setattr(QuantLoader, "read_into", lambda self, name, out: (right(self, name, out), out.sort())[0])
    status, out, _ = verified(capsys, str(quantised), "--tokens", "0")
    assert status == 1
    assert "TOO LARGE" in out


def test_a_bias_that_transformers_has_no_place_for_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tiny_checkpoint(tmp_path / "source", "llama")
    tensors = load_file(source / "model.safetensors")
    save_file({**tensors, "model.layers.0.input_layernorm.bias": torch.ones(64)}, source / "model.safetensors")
    settings = {"quant_method": "gptq", "bits": 4, "group_size": 32}
    quantised, _ = files.quantise_directory(source, tmp_path / "gptq", files.gptq(), settings)
    status, _, err = verified(capsys, str(quantised))
    assert status == 1
    assert "adds model.layers.0.input_layernorm.bias, which transformers' model has no place for" in err


def test_a_gguf_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    status, _, err = verified(capsys, str(tmp_path / "model.gguf"))
    assert status == 1
    assert "is not in safetensors; atb verify compares checkpoints in safetensors" in err
