# SPDX-License-Identifier: Apache-2.0
"""Splits an answer into thoughts, text and tool calls while it is generated."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atb_core.runner.detokenizer import possible_beginning

if TYPE_CHECKING:
    from atb_core import StreamChunk
    from atb_core.plugins import ToolCall, ToolParser

_OPEN, _CLOSE = "<think>", "</think>"


@dataclass(frozen=True)
class Piece:
    """A piece of an answer; one of the three is set.

    Attributes:
        reasoning: Text of thoughts.
        content: Text for the reader.
        call: A tool call, complete.
    """

    reasoning: str = ""
    content: str = ""
    call: ToolCall | None = None


class AnswerSplitter:
    """Splits the answer of one completion.

    Thoughts stand between `<think>` and `</think>` at its beginning; white space at their borders is left out. Text
    that may belong to a mark or to a tool call is held back until it is certain what it is.

    Args:
        thinks: Looks for thoughts.
        in_thought: The prompt has opened them.
        parser: Reads tool calls in the family's notation; `None`: there are none.
        max_calls: Further calls are left out; `None`: none are.
    """

    def __init__(
        self,
        *,
        thinks: bool = False,
        in_thought: bool = False,
        parser: ToolParser | None = None,
        max_calls: int | None = None,
    ) -> None:
        self._parser, self._max_calls = parser, max_calls
        self._state = "thought" if in_thought else "start" if thinks else "content"
        self._held = ""
        self._after_thought = False
        self._begun = False
        # Everything behind the thoughts, for the parser; how much of its text, and how many calls, were given.
        self._text, self._shown, self._num_calls = "", 0, 0

    @property
    def is_open(self) -> bool:
        """True if all text that comes is for the reader, as it is."""
        return self._state == "content" and self._parser is None and not self._after_thought

    def push(self, text: str) -> Iterator[Piece]:
        """Takes the next text and yields what became certain."""
        self._held += text
        if self._state == "start":
            start = self._held.lstrip()
            if start.startswith(_OPEN):
                self._state, self._held = "thought", start[len(_OPEN) :]
            elif not _OPEN.startswith(start):
                self._state = "content"
        if self._state == "thought":
            yield from self._thought()
        if self._state == "content":
            held, self._held = self._held, ""
            yield from self._content(held)

    def finish(self) -> Iterator[Piece]:
        """Yields what was held back, at the end of the answer."""
        if self._state == "thought":
            if rest := self._held.rstrip():
                yield Piece(reasoning=rest)
        elif self._state == "start":
            yield from self._content(self._held)
        if self._parser is not None:
            answer = self._parser.parse(self._text)
            yield from self._show(answer.content)
            yield from self._show_calls(answer.tool_calls)

    def _thought(self) -> Iterator[Piece]:
        if not self._begun:
            self._held = self._held.lstrip()
            self._begun = bool(self._held)
        thought, close, rest = self._held.partition(_CLOSE)
        if close:
            self._state, self._held, self._after_thought = "content", rest, True
            thought = thought.rstrip()
        else:
            # An end mark may have begun, and white space before one does not count.
            thought = thought[: len(thought) - possible_beginning(thought, [_CLOSE])].rstrip()
            self._held = self._held[len(thought) :]
        if thought:
            yield Piece(reasoning=thought)

    def _content(self, text: str) -> Iterator[Piece]:
        if self._after_thought:
            text = text.lstrip()
            self._after_thought = not text
        if not text:
            return
        if self._parser is None:
            yield Piece(content=text)
            return
        self._text += text
        certain = self._text[: self._parser.certain_length(self._text)]
        # White space before a call does not count.
        yield from self._show(certain.rstrip())
        if len(certain) < len(self._text):
            # A call is complete if it is one whatever follows: this character is in no notation.
            yield from self._show_calls(self._parser.parse(self._text + "\ufffc").tool_calls)

    def _show(self, content: str) -> Iterator[Piece]:
        if len(content) > self._shown:
            yield Piece(content=content[self._shown :])
            self._shown = len(content)

    def _show_calls(self, calls: Sequence[ToolCall]) -> Iterator[Piece]:
        for call in calls[self._num_calls : self._max_calls]:
            yield Piece(call=call)
        self._num_calls = max(self._num_calls, len(calls))


def is_text_alone(chunk: StreamChunk) -> bool:
    """Returns True if there is nothing in a chunk but a text."""
    return bool(chunk.text) and chunk.finish_reason is None and chunk.logprobs is None


def arguments_text(call: ToolCall) -> str:
    """Returns the arguments of a call as JSON."""
    return json.dumps(dict(call.arguments), ensure_ascii=False)
