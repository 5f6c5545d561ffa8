# SPDX-License-Identifier: Apache-2.0
"""A tokenizer is read from a directory's files as Hugging Face reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from runner.templates import CHATML
from runner.tiny_tokenizers import byte_level

from atb_core.checkpoint import TokenizerParts
from atb_core.errors import RequestError, TokenizerError
from atb_core.runner.tokenizer import Tokenizer


def write(directory: Path, **files: Any) -> Path:
    """A model directory; keyword ``a_b`` is the file a_b.json, strings are written as they are."""
    directory.mkdir(exist_ok=True)
    for name, value in files.items():
        text = value if isinstance(value, str) else json.dumps(value)
        (directory / f"{name}.json").write_text(text, encoding="utf-8")
    return directory


@pytest.fixture
def tokenizer_json() -> str:
    text: str = byte_level().to_str()
    return text


def test_encodes_and_decodes_as_the_library_does(tmp_path: Path, tokenizer_json: str) -> None:
    tokenizer = Tokenizer.from_path(write(tmp_path, tokenizer=tokenizer_json))
    text = "the <|im_start|>你好 👋🏽\n"
    ids = tokenizer.encode(text)
    assert ids == byte_level().encode(text).ids
    assert tokenizer.decode(ids) == "the 你好 👋🏽\n"
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert tokenizer.vocab_size == byte_level().get_vocab_size()


def test_truncation_and_padding_of_the_training_are_dropped(tmp_path: Path) -> None:
    trained = byte_level()
    trained.enable_truncation(4)
    trained.enable_padding(length=16)
    tokenizer = Tokenizer.from_path(write(tmp_path, tokenizer=trained.to_str()))
    text = "the lazy dog jumps over you and me"
    assert tokenizer.encode(text) == byte_level().encode(text).ids
    assert len(tokenizer.encode("a")) == 1


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"generation_config": {"eos_token_id": [2, 0]}, "config": {"eos_token_id": 7}}, {0, 2}),
        ({"generation_config": {"eos_token_id": 2}}, {2}),
        ({"generation_config": {}, "config": {"eos_token_id": 7}}, {7}),
        ({"config": {"eos_token_id": None}}, set()),
        ({"tokenizer_config": {"eos_token": "<|im_end|>"}}, {2}),
        ({"tokenizer_config": {"eos_token": {"content": "<|im_end|>"}}, "config": {"eos_token_id": 0}}, {0, 2}),
        ({"special_tokens_map": {"eos_token": "<|endoftext|>"}}, {0}),
        ({"tokenizer_config": {"eos_token": "<new>"}}, {byte_level().get_vocab_size()}),
        ({"generation_config": {"eos_token_id": None}, "config": {"eos_token_id": 7}}, {7}),
        ({"generation_config": {"eos_token_id": -1}, "config": {"eos_token_id": [-1, 7]}}, {7}),
    ],
)
def test_tokens_that_end_a_text(tmp_path: Path, tokenizer_json: str, files: dict[str, Any], expected: set[int]) -> None:
    assert Tokenizer.from_path(write(tmp_path, tokenizer=tokenizer_json, **files)).eos_token_ids == expected


def test_special_tokens_reach_the_template(tmp_path: Path, tokenizer_json: str) -> None:
    config = {
        "bos_token": {"content": "<|im_start|>"},
        "eos_token": "<|im_end|>",
        "chat_template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{{ pad_token }}",
    }
    tokenizer = Tokenizer.from_path(write(tmp_path, tokenizer=tokenizer_json, tokenizer_config=config))
    assert tokenizer.apply_chat_template([{"role": "user", "content": "x"}]) == "<|im_start|>x<|im_end|>"


def test_a_template_in_a_file_of_its_own_comes_first(tmp_path: Path, tokenizer_json: str) -> None:
    write(tmp_path, tokenizer=tokenizer_json, tokenizer_config={"chat_template": "old"})
    (tmp_path / "chat_template.jinja").write_text("new {{ messages[0].content }}", encoding="utf-8")
    assert Tokenizer.from_path(tmp_path).apply_chat_template([{"role": "user", "content": "é"}]) == "new é"


def test_a_template_for_tools_is_taken_when_there_are_tools(tmp_path: Path, tokenizer_json: str) -> None:
    named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]
    tokenizer = Tokenizer.from_path(
        write(tmp_path, tokenizer=tokenizer_json, tokenizer_config={"chat_template": named})
    )
    chat = [{"role": "user", "content": "x"}]
    assert tokenizer.apply_chat_template(chat) == "plain"
    assert tokenizer.apply_chat_template(chat, tools=[{"type": "function"}]) == "tools"
    assert tokenizer.apply_chat_template(chat, tools=[]) == "tools", "as in transformers"


def test_what_is_none_in_a_message_is_left_out(tmp_path: Path, tokenizer_json: str) -> None:
    source = "{% for m in messages %}{{ m.content }}{{ 'tool_calls' in m }}{{ m | length }}{% endfor %}"
    tokenizer = Tokenizer.from_path(
        write(tmp_path, tokenizer=tokenizer_json, tokenizer_config={"chat_template": source})
    )
    assert tokenizer.apply_chat_template([{"role": "assistant", "content": None, "tool_calls": None}]) == "False1"


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_thoughts_have_the_name_that_the_template_reads(tmp_path: Path, tokenizer_json: str, name: str) -> None:
    source = "{% for m in messages %}<{{ m.reasoning_content }}|{{ m.thinking }}>{% endfor %}"
    write(tmp_path, tokenizer=tokenizer_json, tokenizer_config={"chat_template": source})
    messages = [{"role": "assistant", "content": "x", name: "hm"}, {"role": "user", "content": "x"}]
    assert Tokenizer.from_path(tmp_path).apply_chat_template(messages) == "<hm|hm><|>"


def test_a_message_that_is_no_dict_is_refused(tmp_path: Path, tokenizer_json: str) -> None:
    write(tmp_path, tokenizer=tokenizer_json, tokenizer_config={"chat_template": "x"})
    with pytest.raises(RequestError, match="A message of a chat must be a dict, not 'hello'"):
        Tokenizer.from_path(tmp_path).apply_chat_template(["hello"])  # type: ignore[list-item]


def test_without_a_template_the_next_step_is_to_continue_text(tmp_path: Path, tokenizer_json: str) -> None:
    tokenizer = Tokenizer.from_path(write(tmp_path, tokenizer=tokenizer_json))
    with pytest.raises(TokenizerError, match="atb run --raw"):
        tokenizer.apply_chat_template([{"role": "user", "content": "x"}])


def test_a_vocabulary_with_bos_and_eos_of_its_own_gets_each_once() -> None:
    tokenizer = Tokenizer(TokenizerParts(byte_level(), bos_id=1, eos_id=2))
    middle = byte_level().encode("the dog").ids
    assert tokenizer.encode("the dog") == [1, *middle, 2]
    assert tokenizer.encode("<|im_start|>the dog<|im_end|>") == [1, *middle, 2]
    assert tokenizer.encode("the dog", add_special_tokens=False) == middle


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "There is no tokenizer in"),
        ({"tokenizer": "{not json"}, "tokenizer.json cannot be read"),
        ({"tokenizer": {"version": "1.0"}}, "tokenizer.json cannot be read"),
        ({"tokenizer": None, "tokenizer_config": "[]"}, "must hold a JSON object, not list"),
        ({"tokenizer": None, "generation_config": "{"}, "generation_config.json cannot be read"),
    ],
)
def test_damaged_or_missing_files_are_named(
    tmp_path: Path, tokenizer_json: str, files: dict[str, Any], message: str
) -> None:
    files = {name: tokenizer_json if value is None else value for name, value in files.items()}
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.from_path(write(tmp_path, **files))


def test_an_old_format_needs_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tokenizer.model").write_bytes(b"sentencepiece")
    (tmp_path / "transformers.py").write_text("raise ImportError", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TokenizerError, match=r"only as tokenizer\.model, which the transformers package"):
        Tokenizer.from_path(tmp_path / "model")


def test_an_old_format_that_ends_the_process_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "spiece.model").write_bytes(b"sentencepiece")
    code = "import os\nclass AutoTokenizer:\n    def from_pretrained(*a, **k):\n"
    code += "        print('no memory', flush=True)\n        os.abort()\n"
    (tmp_path / "transformers.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TokenizerError, match=r"spiece\.model: its process ended with signal 6 .*no memory"):
        Tokenizer.from_path(tmp_path / "model")


def test_an_old_format_is_converted_by_transformers(tmp_path: Path) -> None:
    state = json.loads(byte_level().to_str())["model"]
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in state["merges"]]
    (tmp_path / "vocab.json").write_text(json.dumps(state["vocab"]), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    write(tmp_path, tokenizer_config={"tokenizer_class": "GPT2Tokenizer"}, config={"model_type": "gpt2"})
    tokenizer = Tokenizer.from_path(tmp_path)
    text = "the quick 你好"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode(text, add_special_tokens=False) == byte_level().encode(text).ids


def test_a_tokenizer_that_is_code_of_the_checkpoint_is_refused_and_not_run(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')", encoding="utf-8")
    own = {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["own.OwnTokenizer", None]}}
    write(tmp_path, vocab={"a": 0}, tokenizer_config=own)
    with pytest.raises(TokenizerError, match="no code of a checkpoint is run") as error:
        Tokenizer.from_path(tmp_path)
    assert "trust_remote_code" not in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_chatml_from_a_directory(tmp_path: Path, tokenizer_json: str) -> None:
    tokenizer = Tokenizer.from_path(
        write(tmp_path, tokenizer=tokenizer_json, tokenizer_config={"chat_template": CHATML})
    )
    assert tokenizer.has_chat_template
    text = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], add_generation_prompt=False)
    assert text == "<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"


def test_templates_of_which_none_is_the_usual_one_are_named(tmp_path: Path, tokenizer_json: str) -> None:
    templates = [{"name": "rag", "template": "R"}, {"name": "plan", "template": "P"}]
    write(tmp_path, tokenizer=tokenizer_json, tokenizer_config={"chat_template": templates})
    with pytest.raises(TokenizerError, match="no chat template called default, only 'rag', 'plan'"):
        Tokenizer.from_path(tmp_path).apply_chat_template([{"role": "user", "content": "x"}])
