# SPDX-License-Identifier: Apache-2.0
"""A directory's tokenizer has the tokens and templates of all its files, with the ids that transformers gives them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from runner.tiny_tokenizers import byte_level
from tokenizers import AddedToken, Regex, normalizers

from atb_core.checkpoint import TokenizerParts, open_checkpoint
from atb_core.checkpoint.guarded_tokenizer import GuardedTokenizer
from atb_core.errors import ConfigError, TokenizerError
from atb_core.runner.tokenizer import Tokenizer

SIZE = byte_level().get_vocab_size()
FLAGS = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}


def directory(path: Path, **files: Any) -> Path:
    """A model directory; keyword `a_b` is the file a_b.json."""
    (path / "config.json").write_text("{}")
    (path / "tokenizer.json").write_text(byte_level().to_str())
    for name, value in files.items():
        (path / f"{name}.json").write_text(json.dumps(value))
    return path


def parts(path: Path, **files: Any) -> TokenizerParts:
    return open_checkpoint(directory(path, **files)).tokenizer_parts()


def decoder(*texts: str, first: int = SIZE, **flags: bool) -> dict[str, Any]:
    return {str(first + n): {"content": text, "special": True, **FLAGS, **flags} for n, text in enumerate(texts)}


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config": {"added_tokens_decoder": decoder("<aside>", "</aside>")}},
        {"tokenizer_config": {"added_tokens_decoder": dict(reversed(decoder("<aside>", "</aside>").items()))}},
        {"added_tokens": {"</aside>": SIZE + 1, "<aside>": SIZE}},
        {
            "tokenizer_config": {
                "extra_special_tokens": [
                    "<aside>",
                    {"__type": "AddedToken", "content": "</aside>", "special": True, **FLAGS},
                ]
            }
        },
        {"special_tokens_map": {"additional_special_tokens": ["<aside>", "</aside>"]}},
        {"tokenizer_config": {"tool_token": "<aside>", "extra_special_tokens": {"end": "</aside>"}}},
        {"tokenizer_config": {"pad_token": "</aside>", "bos_token": "<aside>"}},
    ],
)
def test_tokens_of_any_file_are_matched_whole(files: dict[str, Any], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    backend = parts(tmp_path, **files).backend
    text = "a<aside>b</aside>"
    ids = backend.encode(text).ids
    assert [id for id in ids if id >= SIZE] == [SIZE, SIZE + 1]
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert ids == transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)(text)["input_ids"]


@pytest.mark.parametrize("listed", [[{"special": False}], [{"special": True}], [{}], [None]])
def test_a_list_makes_a_token_special_that_is_new_and_says_nothing_else(listed: list[Any], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokens = [
        each if each is None else {"__type": "AddedToken", "content": "<aside>", **FLAGS, **each} for each in listed
    ]
    config = {"extra_special_tokens": [each or "<aside>" for each in tokens]}
    backend = parts(tmp_path, tokenizer_config=config).backend
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    other = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    ids = other("a<aside>b")["input_ids"]
    assert backend.decode(ids, skip_special_tokens=True) == other.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize(
    ("files", "text"),
    [
        # tokenizer.json has it as special, and a later file does not.
        ({"tokenizer_config": {"added_tokens_decoder": decoder("<|im_end|>", first=2, special=False)}}, "a<|im_end|>b"),
        (
            {
                "tokenizer_config": {"added_tokens_decoder": decoder("<|im_end|>", first=2)},
                "special_tokens_map": {"bos_token": "<aside>", "additional_special_tokens": ["</aside>"]},
            },
            "a<aside>b</aside><|im_end|>",
        ),
    ],
    ids=["special in one file only", "a map beside added_tokens_decoder"],
)
def test_files_that_contradict_each_other_are_read_as_in_transformers(
    files: dict[str, Any], text: str, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    loaded = parts(tmp_path, **files)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    other = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    ids = other(text)["input_ids"]
    assert loaded.backend.encode(text).ids == ids
    assert loaded.special_tokens.get("bos_token") == other.bos_token
    decoder = Tokenizer(loaded).text_decoder([])
    streamed = "".join([*map(decoder.push, ids), decoder.finish()])
    assert streamed == other.decode(ids, skip_special_tokens=True)


def test_properties_of_an_added_token_are_kept(tmp_path: Path) -> None:
    tokens = decoder("<think>", special=False, lstrip=True)
    backend = parts(tmp_path, tokenizer_config={"added_tokens_decoder": tokens}).backend
    assert backend.encode("a  <think>").ids == [*backend.encode("a").ids, SIZE]
    assert backend.decode([SIZE], skip_special_tokens=True) == "<think>"


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config": {"eos_token": "<|im_end|>"}},
        {"special_tokens_map": {"eos_token": {"content": "<|im_end|>", **FLAGS}}},
        {"tokenizer_config": {"extra_special_tokens": ["<|im_end|>"]}},
        {"tokenizer_config": {"eos_token": "<|im_end|>", "added_tokens_decoder": "of the tokenizer"}},
    ],
)
def test_a_token_takes_the_spaces_beside_it_although_its_name_is_a_mere_text(
    files: dict[str, Any], tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    backend = byte_level()
    end = backend.token_to_id("<|im_end|>")
    config = files.get("tokenizer_config", {})
    if "added_tokens_decoder" in config:
        config["added_tokens_decoder"] = decoder("<|im_end|>", first=end, lstrip=True, rstrip=True)
    else:
        backend.add_special_tokens([AddedToken("<|im_end|>", lstrip=True, rstrip=True)])
    directory(tmp_path, **files)
    (tmp_path / "tokenizer.json").write_text(backend.to_str())
    loaded = open_checkpoint(tmp_path).tokenizer_parts().backend
    text = "a  <|im_end|>  b"
    ids = loaded.encode(text).ids
    assert ids == [*loaded.encode("a").ids, end, *loaded.encode("b").ids]
    assert loaded.decode(ids, skip_special_tokens=True) == "ab"
    assert ids == transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)(text)["input_ids"]


@pytest.mark.parametrize("is_guarded", [False, True])
def test_special_tokens_are_split_where_the_configuration_says_so(is_guarded: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    backend = byte_level()
    if is_guarded:
        backend.normalizer = normalizers.Replace(Regex("(unusual)"), "usual")
    directory(tmp_path, tokenizer_config={"split_special_tokens": True})
    (tmp_path / "tokenizer.json").write_text(backend.to_str())
    loaded = open_checkpoint(tmp_path).tokenizer_parts().backend
    assert isinstance(loaded, GuardedTokenizer) == is_guarded
    text = "a<|im_end|>"
    ids = loaded.encode(text).ids
    assert loaded.token_to_id("<|im_end|>") not in ids
    assert ids == transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)(text)["input_ids"]


@pytest.mark.parametrize("is_guarded", [False, True])
def test_no_merge_of_a_tokenizer_is_left_out_at_random(is_guarded: bool, tmp_path: Path) -> None:
    backend = byte_level()
    if is_guarded:
        backend.normalizer = normalizers.Replace(Regex("(unusual)"), "usual")
    text = "the same text with the same tokens"
    ids = backend.encode(text).ids
    backend.model.dropout = 0.9
    (directory(tmp_path) / "tokenizer.json").write_text(backend.to_str())
    loaded = open_checkpoint(tmp_path).tokenizer_parts()
    assert isinstance(loaded.backend, GuardedTokenizer) == is_guarded
    assert Tokenizer(loaded).encode(text) == ids


def test_an_end_token_that_only_the_configuration_names_ends_a_text(tmp_path: Path) -> None:
    end = {"content": "<stop>", **FLAGS}
    assert parts(tmp_path, tokenizer_config={"eos_token": end}).eos_token_ids == {SIZE}


def test_names_of_further_special_tokens_reach_templates(tmp_path: Path) -> None:
    config = {"image_token": "<img>", "extra_special_tokens": {"call": "<call>", "eoi_token": {"content": "</img>"}}}
    special = parts(tmp_path, tokenizer_config=config).special_tokens
    assert special == {"image_token": "<img>", "call": "<call>", "eoi_token": "</img>"}


def test_tokens_that_the_tokenizer_has_keep_their_ids(tmp_path: Path) -> None:
    backend = parts(tmp_path, tokenizer_config={"added_tokens_decoder": decoder("<|im_end|>", first=900)}).backend
    assert backend.token_to_id("<|im_end|>") == byte_level().token_to_id("<|im_end|>")
    assert backend.get_vocab_size() == SIZE


@pytest.mark.parametrize(
    ("files", "cause"),
    [
        ({"tokenizer_config": {"added_tokens_decoder": decoder("<gap>", first=SIZE + 3)}}, rf"'<gap>' as {SIZE + 3}"),
        ({"added_tokens": {"<gap>": 5}}, "'<gap>' as 5"),
        ({"tokenizer_config": {"added_tokens_decoder": {"x": {"content": "<a>"}}}}, "declares an added token as"),
        ({"tokenizer_config": {"added_tokens_decoder": {"-1": {"content": "<a>"}}}}, "declares an added token as"),
        ({"tokenizer_config": {"added_tokens_decoder": {str(SIZE): {"content": 3}}}}, "declares an added token as"),
        ({"added_tokens": {"<a>": 1.5}}, "declares an added token as"),
        ({"added_tokens": {"<a>": SIZE, "<b>": SIZE}}, "declares an added token as {'<b>'"),
        ({"tokenizer_config": {"added_tokens_decoder": ["<a>"]}}, "not an object with ids"),
    ],
)
def test_ids_that_tokens_cannot_have_are_refused(files: dict[str, Any], cause: str, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=cause):
        parts(tmp_path, **files)


TEMPLATES = {"default": "plain", "rag": "documents"}


@pytest.mark.parametrize("listed", [TEMPLATES, [{"name": key, "template": text} for key, text in TEMPLATES.items()]])
def test_several_templates_in_the_configuration(listed: object, tmp_path: Path) -> None:
    assert parts(tmp_path, tokenizer_config={"chat_template": listed}).chat_templates == TEMPLATES


def test_templates_in_files_stand_for_those_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_bytes("documents\r\n✓".encode())
    (tmp_path / "additional_chat_templates" / "notes.txt").write_text("no template")
    (tmp_path / "chat_template.jinja").write_text("plain")
    config = {"chat_template": {"default": "other", "tool_use": "tools"}}
    assert parts(tmp_path, tokenizer_config=config).chat_templates == {"default": "plain", "rag": "documents\n✓"}


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "name",
    [
        "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "config.json",
        "generation_config.json", "chat_template.jinja", "additional_chat_templates/x.jinja",
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["fifo", "zero", "sparse"])
def test_what_is_no_file_of_a_tokenizer_is_refused_at_once(name: str, kind: str, tmp_path: Path) -> None:
    path = directory(tmp_path) / name
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    else:
        path.touch()
        os.truncate(path, 1 << 38)
    with pytest.raises((TokenizerError, ConfigError), match=rf"{path.name} is (not a regular file|larger than)"):
        open_checkpoint(tmp_path).tokenizer_parts()


def test_a_damaged_tokenizer_is_named_also_where_the_library_panics(tmp_path: Path) -> None:
    tokenizer = json.loads(byte_level().to_str())
    tokenizer["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "CAAAAA=="}
    (directory(tmp_path) / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(TokenizerError, match=r"tokenizer\.json cannot be read"):
        open_checkpoint(tmp_path).tokenizer_parts()
