# SPDX-License-Identifier: Apache-2.0
"""Tests the accepted forms of prompts, and the messages about the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from runner.templates import CHATML, THINKING
from runner.tiny_tokenizers import byte_level

from atb_core.checkpoint import TokenizerParts
from atb_core.errors import RequestError, TokenizerError
from atb_core.runner.prompts import EncodedPrompt, PromptEncoder, split_prompts
from atb_core.runner.tokenizer import Tokenizer

CHAT = [{"role": "user", "content": "hello"}]
VOCAB = 500


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(TokenizerParts(byte_level(), chat_templates={"default": CHATML}))


def encoder(tokenizer: Tokenizer | None, max_model_len: int = 40) -> PromptEncoder:
    return PromptEncoder(tokenizer, VOCAB, max_model_len)


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        ("text", ["text"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ((1, 2), [(1, 2)]),
        (range(10**15), [range(10**15)]),
        ([[1, 2], [3]], [[1, 2], [3]]),
        (CHAT, [CHAT]),
        ([CHAT, CHAT], [CHAT, CHAT]),
        (["a", [1], CHAT], ["a", [1], CHAT]),
        ([], []),
    ],
)
def test_one_prompt_or_several(prompts: Any, expected: list[Any]) -> None:
    assert split_prompts(prompts) == expected


def test_arrays_and_tensors_are_token_ids(tokenizer: Tokenizer) -> None:
    for ids in (np.array([1, 2]), torch.tensor([1, 2])):
        (item,) = split_prompts(ids)
        assert encoder(tokenizer).encode(item, "It") == EncodedPrompt(None, [1, 2])


def test_dicts_of_text_and_of_token_ids(tokenizer: Tokenizer) -> None:
    text, ids = split_prompts([{"prompt": "."}, {"prompt_token_ids": [1, 2]}])
    assert encoder(tokenizer).encode(text, "It") == encoder(tokenizer).encode(".", "It")
    assert encoder(tokenizer).encode(ids, "It") == EncodedPrompt(None, [1, 2])
    assert split_prompts({"prompt": "."}) == [{"prompt": "."}]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({"prompt": 5}, "It: 'prompt' must be text, not int"),
        ({"prompt_token_ids": "abc"}, "It: 'prompt_token_ids' must be a list"),
        ({"prompt": "a", "prompt_token_ids": [1]}, "without 'prompt'"),
        ({"prompt": "a", "multi_modal_data": {}}, "It has the keys 'prompt', 'multi_modal_data'"),
    ],
)
def test_wrong_dicts_are_refused(tokenizer: Tokenizer, prompt: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        encoder(tokenizer).encode(prompt, "It")


def test_tools_are_a_template_variable_of_their_own(tokenizer: Tokenizer) -> None:
    with pytest.raises(RequestError, match="tools is given twice"):
        PromptEncoder(tokenizer, VOCAB, 200, tools=[{}], chat_template_kwargs={"tools": [{}]})
    with pytest.raises(RequestError, match="knows no variable 'tools'"):
        PromptEncoder(tokenizer, VOCAB, 200, tools=[{}]).encode(CHAT, "It")


@pytest.mark.parametrize("prompts", [5, None, {"role": "user", "content": "x"}, b"bytes", 1.5, object()])
def test_what_is_no_prompt_at_all(prompts: Any) -> None:
    with pytest.raises(RequestError, match="Prompts cannot be of type"):
        split_prompts(prompts)


def test_text_and_chats_are_encoded(tokenizer: Tokenizer) -> None:
    assert encoder(tokenizer).encode("hello", "It").token_ids == byte_level().encode("hello").ids
    chat = encoder(tokenizer, 100).encode(CHAT, "It")
    assert chat.text is not None
    assert chat.text.endswith("<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n")
    assert chat.token_ids == byte_level().encode(chat.text, add_special_tokens=False).ids
    assert chat.token_ids.count(byte_level().token_to_id("<|im_start|>")) == 3


def test_content_in_text_parts_is_joined(tokenizer: Tokenizer) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    chat = encoder(tokenizer, 100).encode([{"role": "user", "content": parts}], "It")
    assert chat.text is not None
    assert "user\none\ntwo<|im_end|>" in chat.text


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "Prompt 3 is empty"),
        ([], "Prompt 3 is empty"),
        ([1, 500], "token id 500 at position 1; the model has ids from 0 to 499"),
        ([-1], "token id -1 at position 0"),
        ([1, "a"], "'a' .of type str. at position 1"),
        ([1, True], "True .of type bool. at position 1"),
        ([1, 2.0], "2.0 .of type float."),
        (7.5, "of type float"),
        ({"role": "user"}, "of type dict"),
        ([1] * 40, "has 40 tokens; the context holds 40"),
        ("a b c d " * 100, "tokens; the context holds 40"),
        ([{"role": "user", "content": "x" * 400}], "tokens; the context holds 40"),
        ([{"role": "wizard", "content": "x"}], "message 0 has the role 'wizard'"),
        ([{"role": 3, "content": "x"}], "message 0 has the role 3"),
        ([{"content": "x"}], "message 0 has the role None"),
        ([{"role": "user"}], "content of type NoneType"),
        ([{"role": "user", "content": 5}], "content of type int"),
        ([{"role": "user", "content": [{"type": "image"}]}], "content of type 'image'"),
        ([{"role": "user", "content": "a"}, "b"], "message 1 is of type str"),
        ("ab\ud800", "has half of a surrogate pair, '.ud800', at character 2"),
        ([{"role": "user", "content": "\udfff"}], "message 0 has half of a surrogate pair"),
        ([{"role": "user", "content": [{"type": "text", "text": "x\ud900"}]}], "message 0 has half of a surrogate"),
        ([{"role": "user", "content": ["text"]}], "content of type 'str'"),
        ([{"role": "user", "content": [{"type": "text", "text": None}]}], "content of type 'text'"),
        ([{"role": "x" * 10**6, "content": "x"}], "has the role 'xxx"),
        (range(10**15), "has 1000000000000000 tokens; the context holds 40"),
        ({"prompt_token_ids": range(10**15)}, "has 1000000000000000 tokens; the context holds 40"),
        ([1, 10**5000], "has the token id a value of type int at position 1"),
        ([1, True], "has True .of type bool. at position 1"),
        ([1, np.True_], "at position 1, which is not a token id"),
        (torch.tensor([True, False]), "which is not a token id"),
        ([1, 2.0], "has 2.0 .of type float. at position 1"),
    ],
)
def test_a_bad_prompt_is_named_and_explained(tokenizer: Tokenizer, prompt: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message) as raised:
        encoder(tokenizer).encode(prompt, "Prompt 3")
    assert str(raised.value).startswith("Prompt 3")
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("prompt", ["text", CHAT])
def test_text_without_a_tokenizer(prompt: Any) -> None:
    with pytest.raises(RequestError, match="opened without a tokenizer"):
        encoder(None).encode(prompt, "It")
    assert encoder(None).encode([1, 2], "It").token_ids == [1, 2]


def test_a_tokenizer_of_another_model(tokenizer: Tokenizer) -> None:
    small = PromptEncoder(tokenizer, 50, 40)
    with pytest.raises(RequestError, match=r"It becomes the token id .* but the model has ids from 0 to 49"):
        small.encode("the dog", "It")


def test_a_chat_for_a_model_without_a_template() -> None:
    with pytest.raises(TokenizerError, match="no chat template: it was not made"):
        encoder(Tokenizer(TokenizerParts(byte_level()))).encode(CHAT, "It")


def test_the_longest_prompt_leaves_room_for_one_token(tokenizer: Tokenizer) -> None:
    assert len(encoder(tokenizer).encode([1] * 39, "It").token_ids) == 39


def test_chat_variables_reach_the_template_that_knows_them() -> None:
    tokenizer = Tokenizer(TokenizerParts(byte_level(), chat_templates={"default": THINKING}))

    def text(**variables: Any) -> str:
        return PromptEncoder(tokenizer, VOCAB, 200, chat_template_kwargs=variables).encode(CHAT, "It").text or ""

    assert text(enable_thinking=False) == text() + "<think>\n\n</think>\n\n"
    assert text(enable_thinking=True) == text()
    assert not text(add_generation_prompt=False).endswith("assistant\n")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"enable_thinkng": False}, "knows no variable 'enable_thinkng'"),
        ({"enable": False}, "knows no variable 'enable'"),
        ({"tools": [{"type": "function"}]}, "knows no variable 'tools'"),
        ({"messages": []}, "'messages' is the conversation itself"),
    ],
)
def test_chat_variables_that_would_change_nothing_are_refused(variables: dict[str, Any], message: str) -> None:
    tokenizer = Tokenizer(TokenizerParts(byte_level(), chat_templates={"default": THINKING}))
    with pytest.raises(RequestError, match=message):
        PromptEncoder(tokenizer, VOCAB, 200, chat_template_kwargs=variables).encode(CHAT, "It")
