# SPDX-License-Identifier: Apache-2.0
"""Tool calls are read as Qwen3's chat template writes them; what is no call stays in the text."""

from __future__ import annotations

import pytest

from atb_core.plugins import ParsedAnswer, ToolCall
from atb_core.runner.tool_calls import tool_parser
from atb_qwen3.router import Qwen3MoeRouter, Qwen3Router
from atb_qwen3.tool_calls import Qwen3ToolParser

CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "北京", "days": 2}}\n</tool_call>'


def parse(text: str) -> ParsedAnswer:
    return Qwen3ToolParser().parse(text)


def test_both_families_name_the_parser_that_this_package_offers() -> None:
    for router in (Qwen3Router, Qwen3MoeRouter):
        assert isinstance(tool_parser(router.tool_parser, "qwen3"), Qwen3ToolParser)


def test_a_call_is_taken_out_of_the_text() -> None:
    assert parse(f"I will look.\n{CALL}") == ParsedAnswer(
        "I will look.", (ToolCall("weather", {"city": "北京", "days": 2}),)
    )


def test_several_calls_keep_their_order() -> None:
    second = '<tool_call>{"name": "time"}</tool_call>'
    answer = parse(f"{CALL}\n{second}")
    assert [call.name for call in answer.tool_calls] == ["weather", "time"]
    assert answer.tool_calls[1].arguments == {}
    assert answer.content == ""


@pytest.mark.parametrize(
    "text",
    [
        "no call at all \n",
        '<tool_call>\n{"name": "weather", "arguments": {"city": ',
        "<tool_call>not JSON</tool_call>",
        '<tool_call>["weather"]</tool_call>',
        '<tool_call>{"arguments": {}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": "city"}</tool_call>',
        "<tool_call>" + "[" * 100_000 + "</tool_call>",
    ],
    ids=["none", "cut off", "no JSON", "a list", "no name", "no object", "nested"],
)
def test_what_is_no_call_stays_in_the_text(text: str) -> None:
    assert parse(text) == ParsedAnswer(text)


def test_a_broken_call_does_not_hide_a_good_one() -> None:
    answer = parse(f"<tool_call>oops</tool_call>\n{CALL}")
    assert answer.content == "<tool_call>oops</tool_call>"
    assert [call.name for call in answer.tool_calls] == ["weather"]
