# SPDX-License-Identifier: Apache-2.0
"""Reads Qwen3's tool calls: JSON, or Qwen3-Coder's elements, between `<tool_call>` and `</tool_call>`."""

from __future__ import annotations

import json
import re
from typing import Any

from atb_core.plugins import ParsedAnswer, ToolCall, ToolParser, hookimpl

_MARK = re.compile(r"<think>|</think>|<tool_call>\s*")
# The last end may be missing: it is the end token of some fine-tunes.
_END = re.compile(r"\s*(?:</tool_call>\s*|\Z)")
_FUNCTION = re.compile(r"<function=([^<>\s]+)>\s*(.*?)\s*</function>", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^<>\s]+)>\n?(.*?)\n?</parameter>\s*", re.DOTALL)


class Qwen3ToolParser(ToolParser):
    """Reads `{"name": ..., "arguments": {...}}` and `<function=...>`; other content stays in the text.

    What is called while thinking is a thought and no call.
    """

    name = "qwen3"

    def parse(self, text: str) -> ParsedAnswer:
        """Takes the calls out of `text`."""
        calls: list[ToolCall] = []
        content, shown, start = "", 0, 0
        while mark := _MARK.search(text, start):
            start = mark.end()
            if mark[0] == "<think>":
                end = text.find("</think>", start)
                start = len(text) if end < 0 else end + len("</think>")
            elif mark[0] == "</think>":
                # The prompt opened the thought, which is all up to here.
                content, shown, calls = "", 0, []
            elif (found := _call_at(text, start)) is not None:
                call, start = found
                calls.append(call)
                content += text[shown : mark.start()]
                shown = start
        content += text[shown:]
        return ParsedAnswer(content.rstrip() if calls else content, tuple(calls))


def _call_at(text: str, start: int) -> tuple[ToolCall, int] | None:
    """Returns the call that begins at `start` and the place behind it."""
    if function := _FUNCTION.match(text, start):
        arguments = {parameter[1]: _value(parameter[2]) for parameter in _PARAMETER.finditer(function[2])}
        call, place = ToolCall(function[1], arguments), function.end()
        if _PARAMETER.sub("", function[2]):
            return None
    else:
        try:
            value, place = json.JSONDecoder().raw_decode(text, start)
        # The model's output may nest to any depth, and have numbers of any length.
        except (ValueError, RecursionError):
            return None
        parsed = _call(value)
        if parsed is None:
            return None
        call = parsed
    end = _END.match(text, place)
    return None if end is None else (call, end.end())


def _call(value: Any) -> ToolCall | None:
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    keys = [key for key in ("arguments", "parameters") if key in value]
    # Under another key they would be lost.
    if not keys and set(value) - {"name", "id", "type"}:
        return None
    arguments = value[keys[0]] if keys else {}
    if isinstance(arguments, str):
        arguments = _value(arguments)
    if arguments is None:
        arguments = {}
    return ToolCall(value["name"], arguments) if isinstance(arguments, dict) else None


def _value(text: str) -> Any:
    """Returns what JSON says; a text that is no JSON stands for itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


@hookimpl
def atb_tool_parsers() -> list[type[ToolParser]]:
    """Returns the parser."""
    return [Qwen3ToolParser]
