# SPDX-License-Identifier: Apache-2.0
"""A checkpoint tells about its model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from runner.tiny_tokenizers import byte_level
from safetensors.torch import save_file

from atb_core.checkpoint import Checkpoint, open_checkpoint
from atb_core.errors import ConfigError, TokenizerError


def directory_checkpoint(directory: Path, **config: object) -> Checkpoint:
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    save_file({"a": torch.ones(3), "b": torch.ones(3, dtype=torch.bfloat16)}, directory / "model.safetensors")
    return open_checkpoint(directory)


def test_configuration_and_type(tmp_path: Path) -> None:
    directory = directory_checkpoint(tmp_path / "model", model_type="qwen2_moe", hidden_size=64, dtype="float16")
    assert directory.config() == {"model_type": "qwen2_moe", "hidden_size": 64, "dtype": "float16"}
    assert directory.model_type([]) == "qwen2_moe"


@pytest.mark.parametrize("config", [{}, {"torch_dtype": None}])
def test_a_configuration_without_a_dtype_has_that_of_most_of_the_weights(
    config: dict[str, object], tmp_path: Path
) -> None:
    directory = directory_checkpoint(tmp_path / "model", **config)
    assert directory.config()["torch_dtype"] == "float32"
    save_file(
        {"a": torch.ones(3, dtype=torch.float16), "n": torch.ones(9, dtype=torch.int64)},
        directory.path / "m.safetensors",
    )
    (directory.path / "model.safetensors").unlink()
    assert open_checkpoint(directory.path).config()["torch_dtype"] == "float16"
    (directory.path / "m.safetensors").unlink()
    assert open_checkpoint(directory.path).config().get("torch_dtype") is None


@pytest.mark.parametrize("config", [{}, {"model_type": None}, {"model_type": ""}])
def test_a_configuration_without_a_type_is_refused(tmp_path: Path, config: dict[str, object]) -> None:
    checkpoint = directory_checkpoint(tmp_path / "model", **config)
    with pytest.raises(ConfigError, match=rf"configuration of {tmp_path}/model names no model_type"):
        checkpoint.model_type([])


def test_a_configuration_is_the_callers_to_change(tmp_path: Path) -> None:
    checkpoint = directory_checkpoint(tmp_path / "model", model_type="x")
    checkpoint.config().clear()
    assert "model_type" in checkpoint.config()


def test_stored_types_and_quantization(tmp_path: Path) -> None:
    directory = directory_checkpoint(tmp_path / "model", quantization_config={"quant_method": "awq"})
    assert dict(directory.stored_types()) == {"float32": 1, "bfloat16": 1}
    assert directory.quantization() == "awq"
    assert directory_checkpoint(tmp_path / "model").quantization() is None


def test_generation_settings(tmp_path: Path) -> None:
    directory = directory_checkpoint(tmp_path / "model")
    assert directory.generation_config() == {}
    (tmp_path / "model" / "generation_config.json").write_text('{"top_k": 20}')
    assert directory.generation_config() == {"top_k": 20}


def test_a_tokenizer_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="no tokenizer"):
        directory_checkpoint(tmp_path / "model").tokenizer_parts()


def test_only_the_weights_need_torch(tmp_path: Path) -> None:
    byte_level().save(str(directory_checkpoint(tmp_path / "model").path / "tokenizer.json"))
    program = (
        "import sys\n"
        "from atb_core.checkpoint import open_checkpoint\n"
        "checkpoint = open_checkpoint(sys.argv[1])\n"
        "checkpoint.config(), checkpoint.generation_config(), checkpoint.tokenizer_parts(), checkpoint.stored_types()\n"
        "print({'torch', 'transformers'} & set(sys.modules))\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "model")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
