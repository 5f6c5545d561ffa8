# SPDX-License-Identifier: Apache-2.0
"""A stream shows whole characters only, nothing that a stop string takes back, and adds up to the text."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from runner.tiny_tokenizers import byte_fallback, byte_level

from atb_core.runner.detokenizer import Detokenizer
from atb_core.runner.text_decoder import ByteLevelDecoder, TextDecoder, TextDecoderFactory, WindowDecoder

BYTE_LEVEL = byte_level()
BYTE_FALLBACK = byte_fallback()
BYTE_LEVEL_FACTORY = TextDecoderFactory(BYTE_LEVEL)
BYTE_FALLBACK_FACTORY = TextDecoderFactory(BYTE_FALLBACK)

any_text = st.text(st.characters(codec="utf-8"), max_size=40) | st.text("ab 你好😀é\u0301👋🏽\ufffd", max_size=20)


def stream(decoder: TextDecoder, ids: list[int]) -> list[str]:
    return [*(decoder.push(token_id) for token_id in ids), decoder.finish()]


def test_the_decoder_fits_the_tokenizer() -> None:
    assert isinstance(BYTE_LEVEL_FACTORY([]), ByteLevelDecoder)
    assert isinstance(BYTE_FALLBACK_FACTORY([]), WindowDecoder)


@settings(max_examples=200, deadline=None)
@given(text=any_text)
def test_a_text_comes_back_in_whole_characters(text: str) -> None:
    pieces = stream(BYTE_LEVEL_FACTORY([]), BYTE_LEVEL.encode(text).ids)
    assert "".join(pieces) == text
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in text


@settings(max_examples=300, deadline=None)
@given(ids=st.lists(st.integers(0, BYTE_LEVEL.get_vocab_size() + 5), max_size=40))
def test_any_tokens_at_all_decode_as_the_tokenizer_decodes_them(ids: list[int]) -> None:
    assert "".join(stream(BYTE_LEVEL_FACTORY([]), ids)) == BYTE_LEVEL.decode(ids)


@settings(max_examples=200, deadline=None)
@given(prompt=any_text, text=any_text)
@example(prompt="the", text=" the")
@example(prompt="", text="你好")
def test_byte_fallback_comes_back_as_the_tokenizer_continues_the_prompt(prompt: str, text: str) -> None:
    # U+FFFD stands for damage in this kind of tokenizer, so a text that contains it is shown late, not wrongly.
    ids, prompt_ids = BYTE_FALLBACK.encode(text).ids, BYTE_FALLBACK.encode(prompt).ids
    pieces = stream(BYTE_FALLBACK_FACTORY(prompt_ids), ids)
    whole, before = BYTE_FALLBACK.decode(prompt_ids + ids), BYTE_FALLBACK.decode(prompt_ids)
    assert "".join(pieces) == whole[len(before) :]


@settings(max_examples=300, deadline=None)
@given(
    prompt=st.lists(st.integers(0, BYTE_FALLBACK.get_vocab_size() + 2), max_size=8),
    ids=st.lists(st.sampled_from([0, 1, 2, 9999, *range(259, BYTE_FALLBACK.get_vocab_size() + 2)]), max_size=12),
)
@example(prompt=[1, 295], ids=[296, 2, 295, 1, 1, 2, 0, 1, 2, 1, 296])
@example(prompt=[1, 1, 2, 2, 1], ids=[9999, 295])
def test_special_and_unknown_tokens_between_words_change_nothing(prompt: list[int], ids: list[int]) -> None:
    whole, before = BYTE_FALLBACK.decode(prompt + ids), BYTE_FALLBACK.decode(prompt)
    if not before.endswith("\ufffd"):
        assert "".join(stream(BYTE_FALLBACK_FACTORY(prompt), ids)) == whole[len(before) :]


def test_a_character_appears_when_its_last_byte_does() -> None:
    for tokenizer, factory in ((BYTE_LEVEL, BYTE_LEVEL_FACTORY), (BYTE_FALLBACK, BYTE_FALLBACK_FACTORY)):
        before = tokenizer.encode("a").ids
        ids = tokenizer.encode("a🦜").ids[len(before) :]
        assert len(ids) >= 3
        assert stream(factory(before), ids) == [*[""] * (len(ids) - 1), "🦜", ""]


def test_an_unfinished_character_ends_as_a_replacement() -> None:
    ids = BYTE_LEVEL.encode("🦜").ids
    assert stream(BYTE_LEVEL_FACTORY([]), ids[:-1]) == [""] * (len(ids) - 1) + ["\ufffd"]


def test_endless_garbage_is_shown_and_costs_bounded_work() -> None:
    byte = BYTE_FALLBACK.token_to_id("<0xE4>")
    decoder = BYTE_FALLBACK_FACTORY([])
    pieces = stream(decoder, [byte] * 200)
    assert "".join(pieces) == "\ufffd" * 200
    assert any(pieces[:60])


def test_special_tokens_have_no_text_and_added_ones_have() -> None:
    ids = BYTE_LEVEL.encode("a<|im_end|><tool>→→b").ids
    assert "".join(stream(BYTE_LEVEL_FACTORY([]), ids)) == "a<tool>→→b"


class Characters(TextDecoder):
    """Token n is character n: makes the cut into tokens visible in the test."""

    def __init__(self, pieces: list[str]) -> None:
        self._pieces = pieces

    def push(self, token_id: int) -> str:
        return self._pieces[token_id]

    def finish(self) -> str:
        return ""


def run(pieces: list[str], stop: list[str]) -> tuple[list[str], Detokenizer]:
    detokenizer = Detokenizer(Characters(pieces), stop)
    shown = []
    for index in range(len(pieces)):
        shown.append(detokenizer.push(index))
        if detokenizer.stopped_by is not None:
            break
    shown.append(detokenizer.finish())
    return shown, detokenizer


def first_completed(text: str, stop: list[str]) -> tuple[str, str | None]:
    """The text before the stop string that is completed first: the definition, one character at a time."""
    for end in range(len(text) + 1):
        found = [item for item in stop if text[:end].endswith(item)]
        if found:
            longest = max(found, key=len)
            return text[: end - len(longest)], longest
    return text, None


@settings(max_examples=400, deadline=None)
@given(
    pieces=st.lists(st.text("abc", max_size=4), max_size=12),
    stop=st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=3),
)
@example(pieces=["xa", "abc", "d"], stop=["abcd", "bc"])
@example(pieces=["aaab"], stop=["aab"])
def test_the_text_ends_before_the_stop_string_however_it_is_cut(pieces: list[str], stop: list[str]) -> None:
    shown, detokenizer = run(pieces, stop)
    text, stopped_by = first_completed("".join(pieces), stop)
    assert "".join(shown) == text == detokenizer.text
    assert detokenizer.stopped_by == stopped_by


@settings(max_examples=200, deadline=None)
@given(text=st.text("abc", max_size=20), stop=st.lists(st.text("abc", min_size=1, max_size=4), max_size=3))
def test_no_more_is_held_back_than_a_stop_string_could_begin_with(text: str, stop: list[str]) -> None:
    detokenizer = Detokenizer(Characters(list(text)), stop)
    for index in range(len(text)):
        detokenizer.push(index)
        if detokenizer.stopped_by is not None:
            return
        held = text[len(detokenizer.text) : index + 1]
        possible = [text[: index + 1][-n:] for n in range(1, index + 2)]
        longest = max((len(p) for p in possible if any(s.startswith(p) for s in stop)), default=0)
        assert len(held) == longest


def test_what_was_held_back_comes_at_the_end() -> None:
    shown, detokenizer = run(["Hello ", "<", "e", "n"], ["<end>"])
    assert shown == ["Hello ", "", "", "", "<en"]
    assert detokenizer.text == "Hello <en"


def test_nothing_is_shown_after_a_stop() -> None:
    detokenizer = Detokenizer(Characters(["ab", "cd", "ef"]), ["bc"])
    assert [detokenizer.push(0), detokenizer.push(1), detokenizer.push(2)] == ["a", "", ""]
    assert detokenizer.finish() == ""
    assert detokenizer.text == "a"


@pytest.mark.parametrize("stop", ["世界", "好，", "👋"])
def test_a_stop_string_across_tokens_that_split_its_characters(stop: str) -> None:
    text = "你好，世界！👋 bye"
    detokenizer = Detokenizer(BYTE_LEVEL_FACTORY([]), [stop])
    shown = ""
    for token_id in BYTE_LEVEL.encode(text).ids:
        shown += detokenizer.push(token_id)
        assert stop not in shown
    assert shown + detokenizer.finish() == text[: text.index(stop)]
    assert detokenizer.stopped_by == stop


@pytest.mark.parametrize("stop", ["<|im_end|>", "x<|im_end|>", "<|im_end|>\n", "|im_end|>\n!"])
@pytest.mark.parametrize("skip", [True, False])
def test_a_special_token_takes_part_in_stop_strings(stop: str, skip: bool) -> None:
    text = "the fox<|im_start|> <|im_end|>, x<|im_end|>\n!<|im_end|>\n!"
    detokenizer = Detokenizer(BYTE_LEVEL_FACTORY([], skip), [stop])
    for token_id in BYTE_LEVEL.encode(text).ids:
        detokenizer.push(token_id)
    detokenizer.finish()
    expected = text[: text.index(stop)]
    # Of a special token that a stop string cuts nothing is shown.
    assert detokenizer.text == (re.sub(r"<\|im_\w+\|>|<$", "", expected) if skip else expected)
    assert detokenizer.stopped_by == stop


def test_a_special_token_that_could_begin_a_stop_string_is_never_shown() -> None:
    detokenizer = Detokenizer(BYTE_LEVEL_FACTORY([]), ["<|im_end|>!!"])
    ids = BYTE_LEVEL.encode("a<|im_end|>! b<|im_end|>").ids
    assert "".join([*map(detokenizer.push, ids), detokenizer.finish()]) == "a! b"
    assert detokenizer.stopped_by is None
