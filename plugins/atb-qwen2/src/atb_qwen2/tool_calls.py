# SPDX-License-Identifier: Apache-2.0
"""Reads Qwen2.5's tool calls: JSON between `<tool_call>` and `</tool_call>`."""

from __future__ import annotations

import re

from atb_core.plugins import ParsedAnswer, ToolCall, ToolParser, hookimpl, json_call, length_before

_OPEN = "<tool_call>"
_SPACE = re.compile(r"\s*")
_CLOSE = re.compile(r"\s*</tool_call>\s*")


class Qwen2ToolParser(ToolParser):
    """Reads `{"name": ..., "arguments": {...}}`; what is no call stays in the text."""

    name = "qwen2"
    call_format = (f'{_OPEN}\n{{"name": ', ', "arguments": ', "}\n</tool_call>")

    def certain_length(self, text: str) -> int:
        """Returns the length of the text before a call."""
        return length_before(text, _OPEN)

    def parse(self, text: str) -> ParsedAnswer:
        """Takes the calls out of `text`."""
        calls: list[ToolCall] = []
        content, shown, start = "", 0, 0
        while (start := text.find(_OPEN, start)) >= 0:
            inner = _SPACE.match(text, start + len(_OPEN))
            found = json_call(text, inner.end()) if inner else None
            close = _CLOSE.match(text, found[1]) if found else None
            if found and close:
                calls.append(found[0])
                content += text[shown:start]
                shown = start = close.end()
            else:
                start += len(_OPEN)
        content += text[shown:]
        return ParsedAnswer(content.rstrip() if calls else content, tuple(calls))


@hookimpl
def atb_tool_parsers() -> list[type[ToolParser]]:
    """Returns the parser."""
    return [Qwen2ToolParser]
