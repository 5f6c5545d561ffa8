# SPDX-License-Identifier: Apache-2.0
"""A written directory is what Hugging Face's libraries read, and appears whole or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from checkpoint.checkpoints import byte_level_metadata, tiny_gguf, write
from gguf import GGMLQuantizationType as Type
from safetensors import safe_open
from safetensors.torch import save_file

from atb_core.checkpoint import open_weights
from atb_core.checkpoint.gguf.config import read_gguf_config
from atb_core.checkpoint.gguf.loader import GgufLoader
from atb_core.checkpoint.save import copy_tokenizer_files, save_checkpoint, save_gguf_as_directory
from atb_core.errors import WeightsError
from atb_core.graph.dtype import DataType

TEMPLATE = "{% for m in messages %}<s>{{ m.content }}{% endfor %}"


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    tokens = byte_level_metadata("qwen2", [("<s>", 3), ("</s>", 3)], ["h i"])
    more = {
        "tokenizer.ggml.bos_token_id": 257,
        "tokenizer.ggml.eos_token_id": 258,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": TEMPLATE,
    }
    import numpy as np

    embedding = np.random.default_rng(3).standard_normal((259, 64), dtype=np.float32)
    content, _ = tiny_gguf(Type.Q8_0, {**tokens, **more}, {"token_embd.weight": embedding})
    return write(tmp_path / "tiny.gguf", content)


def left_beside(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir() if path != target)


def test_a_gguf_file_becomes_a_directory_with_the_same_tensors(gguf: Path, tmp_path: Path) -> None:
    target = tmp_path / "model"
    save_gguf_as_directory(gguf, target)
    with open_weights(gguf) as source, safe_open(target / "model.safetensors", "pt") as written:
        assert set(written.keys()) == set(source.names())
        for name in source.names():
            assert torch.equal(written.get_tensor(name), source.get(name))
        assert written.metadata() == {"format": "pt"}
    assert json.loads((target / "config.json").read_text()) == read_gguf_config(gguf)
    assert left_beside(target) == ["tiny.gguf"]


def test_the_written_directory_opens_under_our_own_rules(gguf: Path, tmp_path: Path) -> None:
    save_gguf_as_directory(gguf, tmp_path / "model", max_shard_bytes=10_000)
    with open_weights(gguf) as source, open_weights(tmp_path / "model") as written:
        assert set(written.names()) == set(source.names())
        assert all(torch.equal(written.get(name), source.get(name)) for name in source.names())


def test_shards_stay_below_their_limit_unless_one_tensor_is_larger(gguf: Path, tmp_path: Path) -> None:
    target = tmp_path / "model"
    save_gguf_as_directory(gguf, target, max_shard_bytes=10_000)
    index = json.loads((target / "model.safetensors.index.json").read_text())
    shards = sorted(target.glob("*.safetensors"))
    assert len(shards) > 3
    total = 0
    for shard in shards:
        with safe_open(shard, "pt") as file:
            sizes = [file.get_tensor(name).nbytes for name in file.keys()]  # noqa: SIM118 - not a dict
            assert sum(sizes) <= 10_000 or len(sizes) == 1
            assert all(index["weight_map"][name] == shard.name for name in file.keys())  # noqa: SIM118
            total += sum(sizes)
    assert index["metadata"]["total_size"] == total


def test_another_element_type_can_be_asked_for(gguf: Path, tmp_path: Path) -> None:
    save_gguf_as_directory(gguf, tmp_path / "model", dtype=DataType.FLOAT)
    assert json.loads((tmp_path / "model" / "config.json").read_text())["torch_dtype"] == "float32"
    with open_weights(tmp_path / "model") as loader:
        assert {loader.dtype(name) for name in loader.names()} == {DataType.FLOAT}


def test_transformers_reads_the_tokenizer_that_was_written(gguf: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    save_gguf_as_directory(gguf, tmp_path / "model")
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path / "model")
    assert tokenizer.encode("hi") == [257, 256]
    assert tokenizer.encode("hi", add_special_tokens=False) == [256]
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "<s>hi"
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "</s>")
    generation = transformers.GenerationConfig.from_pretrained(tmp_path / "model")
    assert generation.eos_token_id == [258]


def test_a_tokenizer_of_a_directory_is_copied(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    save_file({"a": torch.ones(3)}, source / "model.safetensors")
    for name in ("tokenizer.json", "chat_template.jinja", "modeling.py"):
        (source / name).write_text("content")
    with open_weights(source) as loader:
        save_checkpoint(loader, {"a": 1}, tmp_path / "copy", write_tokenizer=copy_tokenizer_files(source))
    written = {path.name for path in (tmp_path / "copy").iterdir()}
    assert written == {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"}


def test_a_directory_with_something_in_it_is_never_written_to(gguf: Path, tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "mine").write_text("precious")
    with pytest.raises(WeightsError, match="exists already"):
        save_gguf_as_directory(gguf, target)
    assert [path.name for path in target.iterdir()] == ["mine"]
    (target / "mine").unlink()
    save_gguf_as_directory(gguf, target)
    assert (target / "config.json").exists()


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interruption_leaves_nothing(
    interruption: BaseException, gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = GgufLoader.get, iter([False, False, True])

    def get(loader: GgufLoader, name: str) -> torch.Tensor:
        if next(calls):
            raise interruption
        return original(loader, name)

    monkeypatch.setattr(GgufLoader, "get", get)
    expected = WeightsError if isinstance(interruption, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        save_gguf_as_directory(gguf, tmp_path / "model")
    assert left_beside(tmp_path / "model") == ["tiny.gguf"]
    assert not (tmp_path / "model").exists()


def test_a_disk_without_room_is_noticed_first(gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(WeightsError, match="not enough disk space"):
        save_gguf_as_directory(gguf, tmp_path / "model")
    assert left_beside(tmp_path / "model") == ["tiny.gguf"]
