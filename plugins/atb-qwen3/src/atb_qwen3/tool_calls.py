# SPDX-License-Identifier: Apache-2.0
"""Reads Qwen3's tool calls: each is a JSON object between `<tool_call>` and `</tool_call>`."""

from __future__ import annotations

import json
import re

from atb_core.plugins import ParsedAnswer, ToolCall, ToolParser, hookimpl

_CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>\s*", re.DOTALL)


class Qwen3ToolParser(ToolParser):
    """Reads `{"name": ..., "arguments": {...}}`; other content stays in the text."""

    name = "qwen3"

    def parse(self, text: str) -> ParsedAnswer:
        """Takes the calls out of `text`."""
        calls: list[ToolCall] = []

        def take(match: re.Match[str]) -> str:
            call = _call(match[1])
            if call is None:
                return match[0]
            calls.append(call)
            return ""

        content = _CALL.sub(take, text)
        return ParsedAnswer(content.rstrip() if calls else content, tuple(calls))


def _call(text: str) -> ToolCall | None:
    try:
        value = json.loads(text)
    # The model's output may nest to any depth.
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", {})
    return ToolCall(value["name"], arguments) if isinstance(arguments, dict) else None


@hookimpl
def atb_tool_parsers() -> list[type[ToolParser]]:
    """Returns the parser."""
    return [Qwen3ToolParser]
