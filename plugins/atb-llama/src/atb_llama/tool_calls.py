# SPDX-License-Identifier: Apache-2.0
"""Reads the tool calls of Llama 3.1 and 3.2: an answer that is JSON altogether."""

from __future__ import annotations

import re

from atb_core.plugins import ParsedAnswer, ToolCall, ToolParser, hookimpl, json_call

_TAG = "<|python_tag|>"
_BEGIN = re.compile(rf"\s*(?:{re.escape(_TAG)})?\s*")
# The models write several calls in a row, though their template has one.
_BETWEEN = re.compile(r"\s*;?\s*")


class LlamaToolParser(ToolParser):
    """Reads `{"name": ..., "parameters": {...}}`, one or several, perhaps after `<|python_tag|>`.

    An answer with anything else in it is text.
    """

    name = "llama3_json"
    call_format = ('{"name": ', ', "parameters": ', "}")

    def certain_length(self, text: str) -> int:
        """Returns the whole length, once the answer has not begun as a call does, else 0."""
        begin = text.lstrip()
        return 0 if begin.startswith(("{", _TAG)) or _TAG.startswith(begin) else len(text)

    def parse(self, text: str) -> ParsedAnswer:
        """Reads the calls that `text` consists of."""
        begin = _BEGIN.match(text)
        place = begin.end() if begin else 0
        calls: list[ToolCall] = []
        while place < len(text):
            found = json_call(text, place)
            if found is None:
                return ParsedAnswer(text)
            calls.append(found[0])
            between = _BETWEEN.match(text, found[1])
            place = between.end() if between else found[1]
        return ParsedAnswer("", tuple(calls)) if calls else ParsedAnswer(text)


@hookimpl
def atb_tool_parsers() -> list[type[ToolParser]]:
    """Returns the parser."""
    return [LlamaToolParser]
