# SPDX-License-Identifier: Apache-2.0
"""Tokenizers rebuilt from a GGUF file's vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from checkpoint.checkpoints import write
from gguf_bytes import byte_alphabet, byte_level_metadata, gguf_bytes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atb_core.checkpoint import TokenizerParts
from atb_core.errors import TokenizerError
from atb_gguf.tokenizer import read_gguf_tokenizer

CONTROL, USER, UNUSED, BYTE, UNKNOWN = 3, 4, 5, 6, 2
EXTRA = [("<|im_start|>", CONTROL), ("<|im_end|>", CONTROL), ("<tool>", USER), ("[PAD]", UNUSED)]
FIRST_EXTRA = 256
TEXTS = [
    "Hello world",
    "  two  spaces\t\ttab\n\n\nlines \r\n crlf ",
    "你好，世界！我爱北京天安门。",
    "def f(n):\n    return n if n < 2 else f(n - 1)\n",
    "😀👨‍👩‍👧‍👦🎉",
    "1234567890 3.14159",
    "I'm, you're, WE'LL, don't",
    "naïve café",
    "\x00\x01\x7f",
    "½ ² Ⅷ ٣",
    "",
    " ",
    "\n",
]


def tokenizer_of(tmp_path: Path, metadata: dict[str, Any]) -> TokenizerParts:
    return read_gguf_tokenizer(write(tmp_path / "x.gguf", gguf_bytes(metadata)))


def pieces(parts: TokenizerParts, text: str) -> list[str]:
    """Returns the pieces into which the text is cut before anything is merged."""
    pre_tokenizer = parts.backend.pre_tokenizer
    return [text[start:stop] for _, (start, stop) in pre_tokenizer.pre_tokenize_str(text)]


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "qwen2", "llama-bpe"])
@pytest.mark.parametrize("text", TEXTS)
def test_every_text_comes_back(pre: str, text: str, tmp_path: Path) -> None:
    parts = tokenizer_of(tmp_path, byte_level_metadata(pre, EXTRA, ["Ġ t", "h e"]))
    assert parts.backend.decode(parts.backend.encode(text).ids) == text


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30))
def test_any_text_comes_back_or_is_composed(text: str, tmp_path: Path) -> None:
    import unicodedata

    metadata = byte_level_metadata("qwen2")
    parts = tokenizer_of(tmp_path, metadata)
    assert parts.backend.decode(parts.backend.encode(text).ids) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize(
    ("pre", "text", "expected"),
    [
        ("gpt-2", "in 2024 12", ["in", " 2024", " 12"]),
        ("smollm", "in 2024 12", ["in", " ", "2", "0", "2", "4", " ", "1", "2"]),
        ("qwen2", "in 2024 12", ["in", " ", "2", "0", "2", "4", " ", "1", "2"]),
        ("llama-bpe", "in 2024 12", ["in", " ", "202", "4", " ", "12"]),
        ("gpt-2", "I'm WE'LL", ["I", "'m", " WE", "'", "LL"]),
        ("qwen2", "I'm WE'LL", ["I", "'m", " WE", "'LL"]),
        ("gpt-2", "a   b", ["a", "  ", " b"]),
        ("qwen2", "a   b", ["a", "  ", " b"]),
        ("gpt-2", "a\n\n  b", ["a", "\n\n ", " b"]),
        ("qwen2", "a\n\n  b", ["a", "\n\n", " ", " b"]),
        ("qwen2", "x.y(\n", ["x", ".y", "(\n"]),
        ("gpt-2", "x.y(\n", ["x", ".", "y", "(", "\n"]),
    ],
)
def test_text_is_cut_by_the_named_rule(pre: str, text: str, expected: list[str], tmp_path: Path) -> None:
    assert pieces(tokenizer_of(tmp_path, byte_level_metadata(pre)), text) == expected


def test_merges_apply_in_their_order(tmp_path: Path) -> None:
    parts = tokenizer_of(tmp_path, byte_level_metadata("gpt-2", merges=["b c", "a b", "a bc"]))
    assert parts.backend.encode("abc").tokens == ["abc"]
    assert parts.backend.encode("ab").tokens == ["ab"]
    other = tokenizer_of(tmp_path, byte_level_metadata("gpt-2", merges=["a b", "b c"]))
    assert other.backend.encode("abc").tokens == ["ab", "c"]


def test_a_whole_token_wins_over_merges_only_where_the_model_says_so(tmp_path: Path) -> None:
    extra = [("abc", 1)]  # a normal token that no merge makes
    assert tokenizer_of(tmp_path, byte_level_metadata("llama-bpe", extra, ["a b"])).backend.encode("abc").tokens == [
        "abc"
    ]
    assert tokenizer_of(tmp_path, byte_level_metadata("qwen2", extra, ["a b"])).backend.encode("abc").tokens == [
        "ab",
        "c",
    ]


def test_control_tokens_are_special_and_user_tokens_are_not(tmp_path: Path) -> None:
    parts = tokenizer_of(tmp_path, byte_level_metadata("gpt-2", EXTRA, ["a b"]))
    start = 257
    ids = parts.backend.encode("<|im_start|>ab<tool>[PAD]").ids
    assert ids[:3] == [start, 256, start + 2]
    assert start + 3 not in ids, "an unused token stays unused"
    assert parts.backend.decode(ids) == "ab<tool>[PAD]"
    assert parts.backend.decode(ids, skip_special_tokens=False) == "<|im_start|>ab<tool>[PAD]"


def test_all_ways_to_end_an_answer_are_known(tmp_path: Path) -> None:
    extra = [("<|endoftext|>", CONTROL), ("<|im_end|>", CONTROL), ("<|eot_id|>", USER), ("<stop>", CONTROL)]
    metadata = {**byte_level_metadata("gpt-2", extra, ["a b"]), "tokenizer.ggml.eos_token_id": 260}
    parts = tokenizer_of(tmp_path, metadata)
    assert parts.eos_token_ids == {260, 257, 258}, "the file's own, and control tokens that are known to end"
    assert parts.special_tokens["eos_token"] == "<stop>", "the file's own"


def test_what_a_prompt_needs_beside_the_tokens(tmp_path: Path) -> None:
    metadata = {
        **byte_level_metadata("gpt-2", EXTRA, ["a b"]),
        "tokenizer.ggml.bos_token_id": 257,
        "tokenizer.ggml.padding_token_id": 258,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": "{{ messages }}",
    }
    parts = tokenizer_of(tmp_path, metadata)
    assert (parts.bos_id, parts.eos_id) == (257, None)
    assert parts.chat_templates == {"default": "{{ messages }}"}
    names = {"bos_token": "<|im_start|>", "pad_token": "<|im_end|>", "unk_token": byte_alphabet()[0]}
    assert parts.special_tokens == {**names, "eos_token": "<|im_end|>"}
    assert parts.backend.encode("ab").ids == [256], "the tokenizer itself adds nothing"


@pytest.mark.parametrize(("pre", "expected"), [("llama-bpe", True), ("qwen2", False)])
def test_whether_texts_start_with_bos_where_the_file_is_silent(pre: str, expected: bool, tmp_path: Path) -> None:
    metadata = {**byte_level_metadata(pre), "tokenizer.ggml.bos_token_id": 0}
    assert (tokenizer_of(tmp_path, metadata).bos_id == 0) is expected


def sentencepiece_metadata(**changes: Any) -> dict[str, Any]:
    scored = [("▁t", -1.0), ("he", -2.0), ("▁the", -3.0), ("▁a", -4.0), ("▁h", -9.0)]
    letters = [(letter, -100.0) for letter in "▁abcdefghijklmnopqrstuvwxyz."]
    tokens = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((f"<0x{b:02X}>", 0.0) for b in range(256))]
    table = [*tokens, *scored, *letters]
    types = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [1] * (len(table) - 259)
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [token for token, _ in table],
        "tokenizer.ggml.scores": [score for _, score in table],
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    return {**metadata, **{key.replace("__", "."): value for key, value in changes.items()}}


def test_sentencepiece_merges_by_score_and_falls_back_to_bytes(tmp_path: Path) -> None:
    parts = tokenizer_of(tmp_path, sentencepiece_metadata())
    assert parts.backend.encode("the he").tokens == ["▁the", "▁", "he"], "the better score first"
    assert parts.backend.encode("aé").tokens == ["▁a", "<0xC3>", "<0xA9>"]
    assert parts.bos_id == 1
    assert parts.eos_token_ids == {2}


@pytest.mark.parametrize("text", ["the cat", " leading", "two  spaces", "naïve 你好 😀", "a\nb"])
def test_sentencepiece_texts_come_back(text: str, tmp_path: Path) -> None:
    parts = tokenizer_of(tmp_path, sentencepiece_metadata())
    assert parts.backend.decode(parts.backend.encode(text).ids) == text


def test_sentencepiece_without_a_space_before_the_text(tmp_path: Path) -> None:
    parts = tokenizer_of(tmp_path, sentencepiece_metadata(tokenizer__ggml__add_space_prefix=False))
    assert parts.backend.encode("the").tokens == ["t", "he"]
    assert parts.backend.decode(parts.backend.encode("the").ids) == "the"


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"tokenizer.ggml.tokens": []}, "contains no tokenizer"),
        ({"tokenizer.ggml.tokens": [1, 2]}, "not a list of str"),
        ({"tokenizer.ggml.tokens": ["a"] * 257}, "appear twice"),
        ({"tokenizer.ggml.token_type": [1]}, "1 items for 257 tokens"),
        ({"tokenizer.ggml.token_type": [1.0] * 257}, "not a list of int"),
        ({"tokenizer.ggml.merges": []}, "merges is missing"),
        ({"tokenizer.ggml.merges": ["ab"]}, "not two parts"),
        ({"tokenizer.ggml.merges": ["a "]}, "not two parts"),
        ({"tokenizer.ggml.merges": ["x yz"]}, "cannot be built"),
        ({"tokenizer.ggml.model": "bert"}, "kind 'bert'"),
        ({"tokenizer.ggml.pre": "klingon"}, "'klingon'"),
        ({"tokenizer.ggml.eos_token_id": 257}, "not one of 257 tokens"),
        ({"tokenizer.ggml.bos_token_id": "one"}, "not one of 257 tokens"),
        ({"tokenizer.ggml.add_bos_token": 1}, "not true or false"),
        ({"tokenizer.ggml.model": "llama"}, "scores is missing"),
    ],
)
def test_an_inconsistent_vocabulary_is_refused(changes: dict[str, Any], cause: str, tmp_path: Path) -> None:
    metadata = {**byte_level_metadata("gpt-2", merges=["a b"]), **changes}
    with pytest.raises(TokenizerError, match=cause) as caught:
        tokenizer_of(tmp_path, metadata)
    assert caught.value.hint


def test_the_alphabet_of_the_tests_is_complete() -> None:
    assert len(byte_alphabet()) == FIRST_EXTRA


def test_templates_by_name(tmp_path: Path) -> None:
    metadata = byte_level_metadata("gpt-2") | {
        "tokenizer.chat_template": "plain",
        "tokenizer.chat_template.tool_use": "tools",
        "tokenizer.chat_templates": ["tool_use"],
    }
    assert tokenizer_of(tmp_path, metadata).chat_templates == {"default": "plain", "tool_use": "tools"}


def test_a_token_of_which_a_file_says_that_it_has_none(tmp_path: Path) -> None:
    metadata = byte_level_metadata("gpt-2", EXTRA) | {
        "tokenizer.ggml.unknown_token_id": 0xFFFFFFFF,
        "tokenizer.ggml.eos_token_id": FIRST_EXTRA + 1,
    }
    assert set(tokenizer_of(tmp_path, metadata).special_tokens) == {"eos_token"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("normalizer.lowercase", True),
        ("remove_extra_whitespaces", True),
        ("precompiled_charsmap", [1, 2]),
        ("add_sep_token", True),
        ("suppress_tokens", [5]),
    ],
)
def test_entries_that_would_change_the_tokens_are_refused_by_name(key: str, value: Any, tmp_path: Path) -> None:
    metadata = byte_level_metadata("qwen2", EXTRA)
    with pytest.raises(TokenizerError, match=rf"not supported: tokenizer\.ggml\.{key} = "):
        tokenizer_of(tmp_path, {**metadata, f"tokenizer.ggml.{key}": value})
    off: Any = [] if isinstance(value, list) else False
    tokenizer_of(tmp_path, {**metadata, f"tokenizer.ggml.{key}": off})


def test_a_beginning_without_its_token_is_refused(tmp_path: Path) -> None:
    metadata = {**byte_level_metadata("qwen2"), "tokenizer.ggml.add_bos_token": True}
    with pytest.raises(TokenizerError, match="no bos_token_id says which"):
        tokenizer_of(tmp_path, metadata)


def test_every_end_token_of_a_list_ends_a_text(tmp_path: Path) -> None:
    metadata = byte_level_metadata("qwen2", EXTRA)
    listed = {**metadata, "tokenizer.ggml.eos_token_id": 7, "tokenizer.ggml.eos_token_ids": [7, 9]}
    assert tokenizer_of(tmp_path, listed).eos_token_ids >= {7, 9}
    with pytest.raises(TokenizerError, match="eos_token_ids are"):
        tokenizer_of(tmp_path, {**metadata, "tokenizer.ggml.eos_token_ids": [7, 9999]})
