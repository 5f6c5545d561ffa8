# SPDX-License-Identifier: Apache-2.0
"""Reads Qwen3's tool calls: JSON, or Qwen3-Coder's elements, between `<tool_call>` and `</tool_call>`."""

from __future__ import annotations

import re

from atb_core.plugins import ParsedAnswer, ToolCall, ToolParser, hookimpl, json_call, json_value, length_before

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
    call_format = ('<tool_call>\n{"name": ', ', "arguments": ', "}\n</tool_call>")

    def certain_length(self, text: str) -> int:
        """Returns the length of the text before a call."""
        return length_before(text, "<tool_call>")

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
        arguments = {parameter[1]: json_value(parameter[2]) for parameter in _PARAMETER.finditer(function[2])}
        call, place = ToolCall(function[1], arguments), function.end()
        if _PARAMETER.sub("", function[2]):
            return None
    else:
        parsed = json_call(text, start)
        if parsed is None:
            return None
        call, place = parsed
    end = _END.match(text, place)
    return None if end is None else (call, end.end())


@hookimpl
def atb_tool_parsers() -> list[type[ToolParser]]:
    """Returns the parser."""
    return [Qwen3ToolParser]
