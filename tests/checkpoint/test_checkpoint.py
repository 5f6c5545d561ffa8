# SPDX-License-Identifier: Apache-2.0
"""A checkpoint tells the same about a model in every format."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoint.checkpoints import byte_level_metadata, gguf_bytes, tiny_gguf, write
from gguf import GGMLQuantizationType as Type
from safetensors.torch import save_file

from atb_core.checkpoint import Checkpoint, GgufRules, open_checkpoint
from atb_core.errors import ConfigError, TokenizerError


def directory_checkpoint(directory: Path, **config: object) -> Checkpoint:
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    save_file({"a": torch.ones(3), "b": torch.ones(3, dtype=torch.bfloat16)}, directory / "model.safetensors")
    return open_checkpoint(directory)


def gguf_checkpoint(directory: Path, kind: Type = Type.Q8_0, **metadata: object) -> Checkpoint:
    return open_checkpoint(write(directory / "tiny.gguf", tiny_gguf(kind, metadata)[0]))


def test_configuration_and_type(tmp_path: Path) -> None:
    directory = directory_checkpoint(tmp_path / "model", model_type="qwen2_moe", hidden_size=64, dtype="float16")
    assert directory.config() == {"model_type": "qwen2_moe", "hidden_size": 64, "dtype": "float16"}
    assert directory.model_type([]) == "qwen2_moe"
    gguf = gguf_checkpoint(tmp_path)
    assert gguf.config()["hidden_size"] == 64
    assert gguf.model_type([]) == "tiny"


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


def test_gguf_writes_a_type_without_separators(tmp_path: Path) -> None:
    gguf = gguf_checkpoint(tmp_path)
    assert gguf.model_type(["ti_ny", "other"]) == "ti_ny"
    assert gguf.model_type(["tin_y", "ti_ny"]) == "ti_ny", "one package may serve several names of one architecture"
    assert gguf.model_type(["ti_ny", "tiny"]) == "tiny"


@pytest.mark.parametrize("config", [{}, {"model_type": None}, {"model_type": ""}])
def test_a_configuration_without_a_type_is_refused(tmp_path: Path, config: dict[str, object]) -> None:
    checkpoint = directory_checkpoint(tmp_path / "model", **config)
    with pytest.raises(ConfigError, match=rf"configuration of {tmp_path}/model names no model_type"):
        checkpoint.model_type([])


def test_a_configuration_is_the_callers_to_change(tmp_path: Path) -> None:
    for checkpoint in (directory_checkpoint(tmp_path / "model", model_type="x"), gguf_checkpoint(tmp_path)):
        checkpoint.config().clear()
        assert "model_type" in checkpoint.config()


def test_stored_types_and_quantization(tmp_path: Path) -> None:
    directory = directory_checkpoint(tmp_path / "model", quantization_config={"quant_method": "awq"})
    assert dict(directory.stored_types()) == {"float32": 1, "bfloat16": 1}
    assert directory.quantization() == "awq"
    assert directory_checkpoint(tmp_path / "model").quantization() is None
    quantized = gguf_checkpoint(tmp_path)
    assert quantized.stored_types()["Q8_0"] == 8
    assert quantized.quantization() == "Q8_0"
    assert gguf_checkpoint(tmp_path, Type.F16).quantization() is None
    bare = write(tmp_path / "bare.gguf", gguf_bytes({"general.architecture": "llama"}))
    assert open_checkpoint(bare).quantization() is None


def test_rules_of_a_family_add_to_a_gguf_files_configuration_and_never_replace_it(tmp_path: Path) -> None:
    gguf = gguf_checkpoint(tmp_path)
    gguf.set_rules(GgufRules(config={"hidden_act": "gelu", "hidden_size": 1}))
    assert gguf.config()["hidden_act"] == "gelu"
    assert gguf.config()["hidden_size"] == 64
    gguf.set_rules(None)
    assert "hidden_act" not in gguf.config()


def test_generation_settings(tmp_path: Path) -> None:
    directory = directory_checkpoint(tmp_path / "model")
    assert directory.generation_config() == {}
    (tmp_path / "model" / "generation_config.json").write_text('{"top_k": 20}')
    assert directory.generation_config() == {"top_k": 20}
    assert gguf_checkpoint(tmp_path).generation_config() == {}


def test_a_tokenizer_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    for checkpoint in (directory_checkpoint(tmp_path / "model"), gguf_checkpoint(tmp_path)):
        with pytest.raises(TokenizerError, match="no tokenizer"):
            checkpoint.tokenizer_parts()


def test_only_the_weights_need_torch(tmp_path: Path) -> None:
    metadata = byte_level_metadata("gpt-2")
    paths = [str(directory_checkpoint(tmp_path / "model").path), str(gguf_checkpoint(tmp_path, **metadata).path)]
    program = (
        "import sys\n"
        "from atb_core.checkpoint import open_checkpoint\n"
        "for path in sys.argv[1:]:\n"
        "    checkpoint = open_checkpoint(path)\n"
        "    checkpoint.config(), checkpoint.generation_config()\n"
        "checkpoint.tokenizer_parts(), checkpoint.stored_types()\n"
        "print({'torch', 'transformers'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *paths], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
