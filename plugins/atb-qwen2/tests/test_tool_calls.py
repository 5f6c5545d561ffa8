# SPDX-License-Identifier: Apache-2.0
"""Tool calls are read as Qwen2.5's chat template writes them; what is no call stays in the text."""

from __future__ import annotations

import pytest

from atb_core.plugins import ParsedAnswer, ToolCall
from atb_core.runner.tool_calls import tool_parser
from atb_qwen2.router import Qwen2MoeRouter, Qwen2Router
from atb_qwen2.tool_calls import Qwen2ToolParser

CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "北京", "days": 2}}\n</tool_call>'
PARSED = ToolCall("weather", {"city": "北京", "days": 2})


def parse(text: str) -> ParsedAnswer:
    return Qwen2ToolParser().parse(text)


def test_the_families_name_the_parser_that_this_package_offers() -> None:
    for router in (Qwen2Router, Qwen2MoeRouter):
        assert isinstance(tool_parser(router.tool_parser, "qwen2"), Qwen2ToolParser)


def test_calls_are_taken_out_of_the_text() -> None:
    assert parse(f"I will look.\n{CALL}\n{CALL}") == ParsedAnswer("I will look.", (PARSED, PARSED))
    assert parse(f"{CALL} Done.") == ParsedAnswer("Done.", (PARSED,))


def test_the_format_makes_a_call() -> None:
    before, between, after = Qwen2ToolParser.call_format or ("", "", "")
    assert parse(f'{before}"f"{between}{{"a": 1}}{after}') == ParsedAnswer("", (ToolCall("f", {"a": 1}),))


@pytest.mark.parametrize(
    "text",
    [
        CALL.removesuffix("</tool_call>"),
        CALL.replace("}}", "}"),
        "<tool_call>\n[1]\n</tool_call>",
        '<tool_call>\n{"name": "f", "arguments": 3}\n</tool_call>',
        '<tool_call>\n{"name": 3}\n</tool_call>',
        "<tool_call>" * 1000 + "{" * 3000,
        "<tool_call>" + "[" * 100_000,
    ],
    ids=lambda text: text[:40],
)
def test_what_is_no_call_stays_in_the_text(text: str) -> None:
    assert parse(text) == ParsedAnswer(text)


def test_text_is_certain_up_to_where_a_call_may_begin() -> None:
    parser = Qwen2ToolParser()
    for text, certain in (("Hello", 5), ("a <b", 4), ("a <", 2), ("a <tool_", 2), (f"a {CALL}", 2)):
        assert parser.certain_length(text) == certain
