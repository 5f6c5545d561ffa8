# SPDX-License-Identifier: Apache-2.0
"""Parsers that read the tool calls in a model's answer; each family has its own notation for them."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from atb_core.errors import RequestError
from atb_core.extensions import Extensions
from atb_core.runner.detokenizer import possible_beginning


@dataclass(frozen=True)
class ToolCall:
    """A call of a function that the model asks for.

    Attributes:
        name: Name of the function, as in the request's `tools`.
        arguments: Values by name, as parsed from the model's JSON.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ParsedAnswer:
    """An answer, split into text and tool calls.

    Attributes:
        content: Text for the reader, without the calls.
        tool_calls: Calls in the order in which the model wrote them.
        reasoning_content: Thoughts before them, which `ModelRunner.parse_answer` fills in.
    """

    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning_content: str = ""


class ToolParser(ABC):
    """Parses one notation of tool calls. A family names its parser: `tool_parser = "hermes"` on its router.

    An instance serves one answer.
    """

    #: The name by which a router refers to the parser.
    name: ClassVar[str]
    #: What stands before the name of a call, between name and arguments, and behind them, where a call is written as
    #: JSON; with it a model can be made to call a function.
    call_format: ClassVar[tuple[str, str, str] | None] = None

    @abstractmethod
    def parse(self, text: str) -> ParsedAnswer:
        """Splits a complete answer into text and tool calls.

        A call that is cut off or is not valid JSON stays in the content as the model wrote it: a parser raises nothing
        for a model's output.
        """

    def certain_length(self, text: str) -> int:
        """Returns how much of an answer that goes on is text whatever follows: up to where a call may begin.

        Without an implementation nothing is certain, and a streamed answer comes at its end.
        """
        return 0


def split_thoughts(text: str) -> tuple[str, str]:
    """Returns the thoughts of a complete answer, up to `</think>` or unfinished, and the rest.

    `<think>` is absent where the prompt ends in it.
    """
    thoughts, close, rest = text.partition("</think>")
    if not close and not text.lstrip().startswith("<think>"):
        return "", text
    return thoughts.lstrip().removeprefix("<think>").strip(), rest.lstrip()


def length_before(text: str, mark: str) -> int:
    """Returns the length of `text` up to a `mark`, or up to the beginning of one at its end."""
    found = text.find(mark)
    return len(text) - possible_beginning(text, [mark]) if found < 0 else found


def json_call(text: str, start: int = 0) -> tuple[ToolCall, int] | None:
    """Reads `{"name": ..., "arguments": {...}}`, also with `parameters`, or inside of `function`.

    Returns:
        The call that begins at `start` and the place behind it; `None` for anything else.
    """
    try:
        value, end = json.JSONDecoder().raw_decode(text, start)
    # The model's output may nest to any depth, and have numbers of any length.
    except (ValueError, RecursionError):
        return None
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
        arguments = json_value(arguments)
    if arguments is None:
        arguments = {}
    return (ToolCall(value["name"], arguments), end) if isinstance(arguments, dict) else None


def json_value(text: str) -> Any:
    """Returns what JSON says; a text that is no JSON stands for itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


TOOL_PARSERS: Extensions[type[ToolParser]] = Extensions("atb_tool_parsers", ToolParser, subclasses=True, name="name")


def tool_parser(name: str | None, model_type: str) -> ToolParser:
    """Makes a parser for one answer in the notation `name`, which the family's router names.

    Raises:
        RequestError: The family names no notation, or no installed plugin reads it.
        PluginError: Several plugins read it.
    """
    if name is None:
        raise RequestError(f"the family of {model_type!r} names no notation for tool calls")
    what = f"the notation {name!r} of tool calls, in which models of type {model_type!r} write them"
    return TOOL_PARSERS.required(name, what, RequestError).value()
