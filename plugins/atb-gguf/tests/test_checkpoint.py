# SPDX-License-Identifier: Apache-2.0
"""A GGUF file tells the same about a model as a directory does, and is found like one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoint.checkpoints import write
from gguf import GGMLQuantizationType as Type
from gguf_bytes import byte_level_metadata, gguf_bytes, tiny_gguf

from atb_core.checkpoint import Checkpoint, DirectoryCheckpoint, FormatRules, open_checkpoint
from atb_core.checkpoint.files import CheckedFile
from atb_core.errors import ModelNotFoundError, TokenizerError, WeightsError
from atb_core.graph import DataType
from atb_gguf.checkpoint import GgufCheckpoint
from atb_gguf.header import GgufHeader, read_header


def gguf_checkpoint(directory: Path, kind: Type = Type.Q8_0, **metadata: object) -> Checkpoint:
    return open_checkpoint(write(directory / "tiny.gguf", tiny_gguf(kind, metadata)[0]))


def test_configuration_and_type(tmp_path: Path) -> None:
    gguf = gguf_checkpoint(tmp_path)
    assert gguf.config()["hidden_size"] == 64
    assert gguf.model_type([]) == "tiny"


def test_gguf_writes_a_type_without_separators(tmp_path: Path) -> None:
    gguf = gguf_checkpoint(tmp_path)
    assert gguf.model_type(["ti_ny", "other"]) == "ti_ny"
    assert gguf.model_type(["tin_y", "ti_ny"]) == "ti_ny", "one package may serve several names of one architecture"
    assert gguf.model_type(["ti_ny", "tiny"]) == "tiny"


def test_a_configuration_is_the_callers_to_change(tmp_path: Path) -> None:
    checkpoint = gguf_checkpoint(tmp_path)
    checkpoint.config().clear()
    assert "model_type" in checkpoint.config()


def test_the_header_is_read_again_only_of_a_file_that_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Path] = []

    def counted(file: CheckedFile, texts: bool) -> GgufHeader:
        reads.append(file.path)
        return read_header(file, texts)

    monkeypatch.setattr("atb_gguf.file.read_header", counted)
    checkpoint = gguf_checkpoint(tmp_path)
    checkpoint.config()
    with checkpoint.weights() as loader:
        assert loader.dtype("model.norm.weight") is DataType.BF16
    assert len(reads) == 1
    gguf_checkpoint(tmp_path, Type.F16)
    with checkpoint.weights() as loader:
        assert loader.dtype("model.norm.weight") is DataType.FLOAT16
    assert len(reads) == 2


def test_stored_types_and_quantization(tmp_path: Path) -> None:
    quantized = gguf_checkpoint(tmp_path)
    assert quantized.stored_types()["Q8_0"] == 8
    assert quantized.quantization() == "Q8_0"
    assert gguf_checkpoint(tmp_path, Type.F16).quantization() is None
    bare = write(tmp_path / "bare.gguf", gguf_bytes({"general.architecture": "llama"}))
    assert open_checkpoint(bare).quantization() is None


def test_rules_of_a_family_add_to_the_configuration_and_never_replace_it(tmp_path: Path) -> None:
    gguf = gguf_checkpoint(tmp_path)
    gguf.set_rules({"GGUF": FormatRules(config={"hidden_act": "gelu", "hidden_size": 1})})
    assert gguf.config()["hidden_act"] == "gelu"
    assert gguf.config()["hidden_size"] == 64
    gguf.set_rules({"another format": FormatRules(config={"hidden_act": "gelu"})})
    assert "hidden_act" not in gguf.config()


def test_it_has_no_generation_settings(tmp_path: Path) -> None:
    assert gguf_checkpoint(tmp_path).generation_config() == {}


def test_a_tokenizer_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="no tokenizer"):
        gguf_checkpoint(tmp_path).tokenizer_parts()


def test_only_the_weights_need_torch(tmp_path: Path) -> None:
    path = str(gguf_checkpoint(tmp_path, **byte_level_metadata("gpt-2")).path)
    program = (
        "import sys\n"
        "from atb_core.checkpoint import open_checkpoint\n"
        "checkpoint = open_checkpoint(sys.argv[1])\n"
        "checkpoint.config(), checkpoint.generation_config()\n"
        "checkpoint.tokenizer_parts(), checkpoint.stored_types()\n"
        "print({'torch', 'transformers'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_format_is_found_without_its_tables() -> None:
    program = "import sys, atb_gguf.hooks; print({'gguf', 'numpy', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_file_is_itself_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "one.gguf").touch()
    assert open_checkpoint(tmp_path / "one.gguf").path == tmp_path / "one.gguf"
    assert type(open_checkpoint(str(tmp_path / "one.gguf"))) is GgufCheckpoint
    nameless = write(tmp_path / "blob", tiny_gguf()[0])
    assert open_checkpoint(nameless).config()["hidden_size"] == 64


def test_a_directory_around_one_model_is_that_model(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.gguf").touch()
    assert open_checkpoint(tmp_path).path == tmp_path / "a" / "one.gguf"
    (tmp_path / "two.gguf").touch()
    with pytest.raises(ModelNotFoundError, match=r"2 models: a/one\.gguf, two\.gguf"):
        open_checkpoint(tmp_path)


def test_gguf_beside_a_configuration_is_the_model_where_there_are_no_safetensors(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "one.GGUF").touch()
    assert open_checkpoint(tmp_path).path == tmp_path / "one.GGUF"
    (tmp_path / "model.safetensors").touch()
    assert type(open_checkpoint(tmp_path)) is DirectoryCheckpoint
    assert "the safetensors are read, one.GGUF is not" in caplog.text


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["fifo", "zero"])
def test_a_path_to_no_file_is_an_error_at_once(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model"
    os.mkfifo(path) if kind == "fifo" else path.symlink_to("/dev/zero")
    with pytest.raises(WeightsError, match="not a checkpoint that can be opened"):
        open_checkpoint(path)


def test_a_pointer_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"
    with pytest.raises(WeightsError, match="Git LFS pointer"):
        open_checkpoint(write(tmp_path / "model.gguf", pointer)).weights()
