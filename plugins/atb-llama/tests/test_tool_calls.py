# SPDX-License-Identifier: Apache-2.0
"""Tool calls are read as Llama 3.1's chat template writes them; an answer with other text is text."""

from __future__ import annotations

import pytest

from atb_core.plugins import ParsedAnswer, ToolCall
from atb_core.runner.tool_calls import tool_parser
from atb_llama.router import LlamaRouter
from atb_llama.tool_calls import LlamaToolParser

CALL = '{"name": "weather", "parameters": {"city": "Bern"}}'
PARSED = ToolCall("weather", {"city": "Bern"})


def parse(text: str) -> ParsedAnswer:
    return LlamaToolParser().parse(text)


def test_the_family_names_the_parser_that_this_package_offers() -> None:
    assert isinstance(tool_parser(LlamaRouter.tool_parser, "llama"), LlamaToolParser)


@pytest.mark.parametrize("text", [CALL, f" {CALL}\n", f"<|python_tag|>{CALL}"])
def test_an_answer_that_is_a_call(text: str) -> None:
    assert parse(text) == ParsedAnswer("", (PARSED,))


@pytest.mark.parametrize("between", [" ", "; ", "\n", ";"])
def test_several_calls(between: str) -> None:
    assert parse(CALL + between + CALL) == ParsedAnswer("", (PARSED, PARSED))


def test_the_format_makes_a_call() -> None:
    before, between, after = LlamaToolParser.call_format or ("", "", "")
    assert parse(f'{before}"f"{between}{{"a": 1}}{after}') == ParsedAnswer("", (ToolCall("f", {"a": 1}),))


@pytest.mark.parametrize(
    "text", ["", "Hello", f"Yes: {CALL}", f"{CALL} Done.", CALL[:-1], '{"a": 1}', "[1]", "{" * 50_000]
)
def test_everything_else_is_text(text: str) -> None:
    assert parse(text) == ParsedAnswer(text)


def test_an_answer_is_text_once_it_has_not_begun_as_a_call() -> None:
    parser = LlamaToolParser()
    for text in ("", " ", "{", CALL, "<", "<|python_tag|>x"):
        assert parser.certain_length(text) == 0
    for text in ("Hello", "<b>", "a {"):
        assert parser.certain_length(text) == len(text)
