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
        '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
        '<tool_call>{"name": "f", "args": {"a": 1}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {"a": 1' + "0" * 5000 + "}}</tool_call>",
        '<tool_call>{"name": "f"} and more</tool_call>',
        "<tool_call><function=f>lost<parameter=a>1</parameter></function></tool_call>",
        "<tool_call><function=f><parameter=a>1</function></tool_call>",
        "<tool_call>" + "[" * 100_000 + "</tool_call>",
    ],
    ids=[
        "none",
        "cut off",
        "no JSON",
        "a list",
        "no name",
        "no object",
        "list",
        "key",
        "long number",
        "more",
        "lost",
        "open parameter",
        "nested",
    ],
)
def test_what_is_no_call_stays_in_the_text(text: str) -> None:
    assert parse(text) == ParsedAnswer(text)


def test_a_broken_call_does_not_hide_a_good_one() -> None:
    answer = parse(f"<tool_call>oops</tool_call>\n{CALL}")
    assert answer.content == "<tool_call>oops</tool_call>"
    assert [call.name for call in answer.tool_calls] == ["weather"]


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('{"name": "f", "parameters": {"a": [1, null]}}', {"a": [1, None]}),
        ('{"name": "f", "arguments": "{\\"a\\": \\"ü\\"}"}', {"a": "ü"}),
        ('{"type": "function", "function": {"name": "f", "arguments": {"a": {}}}}', {"a": {}}),
        ('{"name": "f", "arguments": null}', {}),
        ('{"name": "f", "arguments": {"a": "</tool_call> <think>"}}', {"a": "</tool_call> <think>"}),
        ("<function=f>\n<parameter=a>\n1.5\n</parameter>\n</function>", {"a": 1.5}),
        ("<function=f>\n<parameter=a>\nx = [\n  1]\n</parameter>\n<parameter=b>\n[1]\n</parameter>\n</function>",
         {"a": "x = [\n  1]", "b": [1]}),
        ("<function=f>\n</function>", {}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("end", ["\n</tool_call>", "", "\n"])
def test_the_ways_to_write_a_call(text: str, arguments: dict[str, object], end: str) -> None:
    assert parse(f"Yes.<tool_call>\n{text}{end}") == ParsedAnswer("Yes.", (ToolCall("f", arguments),))


@pytest.mark.parametrize(
    "text",
    [
        f"<think>\nPerhaps {CALL}?\n</think>\n\nNo.",
        f"Perhaps {CALL}?\n</think>\n\nNo.",
        f"<think>\n{CALL}{CALL}",
        f"<think>{CALL}</think> No. <think>{CALL}</think>",
    ],
    ids=["whole", "opened by the prompt", "cut off", "twice"],
)
def test_a_call_in_a_thought_is_none(text: str) -> None:
    assert parse(text) == ParsedAnswer(text)


def test_a_call_after_a_thought_counts() -> None:
    thought = f"<think>\n{CALL}\n</think>\n\n"
    assert parse(f"{thought}I look.\n{CALL}") == ParsedAnswer(
        f"{thought}I look.", (ToolCall("weather", {"city": "北京", "days": 2}),)
    )
