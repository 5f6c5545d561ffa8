# SPDX-License-Identifier: Apache-2.0
"""`atb convert`: the directory is the model that the file was, or is not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from gguf_bytes import byte_level_metadata, tiny_gguf
from safetensors.torch import load_file

from atb_cli import conversion
from atb_core import ModelRunner
from atb_core.checkpoint import open_checkpoint
from atb_core.graph import DataType
from atb_core.graph.arrays import to_torch
from atb_core.models.base.router import router_of
from atb_core.runner.tokenizer import Tokenizer

Run = Callable[..., Any]
TEXTS = ["ab ab", "<s>ab</s>", "", "a<unk>b", "naïve 你好"]
TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"


@pytest.fixture
def file(tiny: Any, tmp_path: Path) -> Path:
    """A model in Q8_0 with a tokenizer that adds a BOS, has two ends and a chat template."""
    extra = [("<s>", 3), ("</s>", 3), ("<|im_end|>", 3), ("<unk>", 2)]
    ids = {"bos_token_id": 257, "eos_token_id": 258, "unknown_token_id": 260, "add_bos_token": True}
    metadata = byte_level_metadata("gpt-2", extra) | {f"tokenizer.ggml.{key}": value for key, value in ids.items()}
    metadata |= {"tokenizer.chat_template": TEMPLATE, "tokenizer.chat_template.tool_use": TEMPLATE + "!"}
    vocabulary = np.random.default_rng(1).standard_normal((2, 261, 64), dtype=np.float32)
    tensors = {"token_embd.weight": vocabulary[0], "output.weight": vocabulary[1]}
    path = tmp_path / "tiny.gguf"
    path.write_bytes(tiny_gguf(Type.Q8_0, metadata, tensors)[0])
    return path


def tensors_of(path: Path, dtype: DataType) -> dict[str, torch.Tensor]:
    checkpoint = open_checkpoint(path)
    router_of(checkpoint)  # sets the family's rules
    with checkpoint.weights(dtype) as loader:
        return {name: loader.get(name) for name in loader.names()}


def test_a_gguf_file_becomes_a_directory_that_gives_the_same_tokens(atb: Run, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    result = atb("convert", str(file), str(out))
    assert (result.status, result.out) == (0, f"{out}\n")
    answers = []
    for path in (file, out):
        with ModelRunner(path, backend="reference") as runner:
            assert runner.tokenizer is not None
            outputs = runner.generate(["ab ab", [7, 8, 9]], runner.get_default_sampling_params())
            chat = runner.chat([{"role": "user", "content": "ab"}], runner.get_default_sampling_params())
            answers.append([(one.prompt_token_ids, one.token_ids, one.text) for one in (*outputs, *chat)])
    assert answers[0] == answers[1]
    assert answers[0][0][0][0] == 257, "a BOS, which the file asks for"


def test_tokenizer_ends_and_templates_are_those_of_the_file(atb: Run, file: Path, tmp_path: Path) -> None:
    assert atb("convert", str(file), str(tmp_path / "out")).status == 0
    before, after = Tokenizer.from_path(file), Tokenizer.from_path(tmp_path / "out")
    assert before.eos_token_ids == after.eos_token_ids == {258, 259}
    assert before.chat_templates == after.chat_templates
    for text in TEXTS:
        for special in (False, True) if not text.startswith("<s>") else (False,):
            ids = before.encode(text, add_special_tokens=special)
            assert after.encode(text, add_special_tokens=special) == ids
        assert after.decode(ids) == before.decode(ids)


def test_large_tensors_are_written_in_pieces_and_large_models_in_several_files(
    atb: Run, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "_PIECE_BYTES", 5000)
    monkeypatch.setattr(conversion, "_SHARD_BYTES", 50_000)
    assert atb("convert", str(file), str(tmp_path / "out"), "--dtype", "float16").status == 0
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 1 and sorted(set(index["weight_map"].values())) == files
    written = {name: tensor for one in files for name, tensor in load_file(tmp_path / "out" / one).items()}
    expected = tensors_of(file, DataType.FLOAT16)
    assert written.keys() == expected.keys()
    for name, tensor in written.items():
        assert tensor.dtype == torch.float16
        assert torch.equal(tensor, to_torch(expected[name])), name
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "float16"
    ModelRunner(tmp_path / "out", backend="reference").close()


def test_a_directory_is_written_in_another_type_with_its_own_files(atb: Run, chat_model: str, tmp_path: Path) -> None:
    (Path(chat_model) / "additional_chat_templates").mkdir()
    (Path(chat_model) / "additional_chat_templates" / "tool_use.jinja").write_text("x")
    assert atb("convert", chat_model, str(tmp_path / "out"), "--dtype", "bfloat16").status == 0
    for name in ("tokenizer.json", "tokenizer_config.json", "additional_chat_templates/tool_use.jinja"):
        assert (tmp_path / "out" / name).read_bytes() == (Path(chat_model) / name).read_bytes()
    own = load_file(Path(chat_model) / "model.safetensors")
    for name, tensor in load_file(tmp_path / "out" / "model.safetensors").items():
        assert torch.equal(tensor, own[name].bfloat16())


def test_nothing_is_overwritten(atb: Run, file: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert atb("convert", str(file), str(tmp_path / "out")).status == 0, "an empty directory is nothing"
    result = atb("convert", str(file), str(tmp_path / "out"))
    assert result.status == 1
    assert f"{tmp_path / 'out'} exists, and nothing is overwritten" in result.err
    assert atb("convert", str(file), str(file)).status == 1
    assert file.read_bytes()[:4] == b"GGUF"


@pytest.mark.parametrize("fault", ["damaged", "quantised", "unserved"])
def test_what_cannot_be_converted_leaves_nothing(
    atb: Run, file: Path, tiny_model: str, tmp_path: Path, fault: str
) -> None:
    source, config = file, Path(tiny_model) / "config.json"
    if fault == "damaged":
        file.write_bytes(file.read_bytes()[:-20_000])
    else:
        added = {"quantization_config": {"quant_method": "awq"}} if fault == "quantised" else {"model_type": "nobodys"}
        config.write_text(json.dumps(json.loads(config.read_text()) | added))
        source = Path(tiny_model)
    before = sorted(tmp_path.iterdir())
    result = atb("convert", str(source), str(tmp_path / "out"))
    assert result.status == 1
    assert "This is a bug" not in result.err
    assert sorted(tmp_path.iterdir()) == before


def test_a_disk_without_room_is_told_before_anything_is_written(
    atb: Run, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = conversion.shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(conversion.shutil, "disk_usage", lambda path: usage)
    assert "MB are free at" in atb("convert", str(file), str(tmp_path / "out")).err
    assert not (tmp_path / "out").exists()
