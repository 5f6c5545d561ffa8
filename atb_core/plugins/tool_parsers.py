# SPDX-License-Identifier: Apache-2.0
"""What reads the tool calls out of a model's answer; each family has its own notation for them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True)
class ToolCall:
    """A function that the model wants called.

    Attributes:
        name: of the function, as the request's `tools` gave it.
        arguments: by name, as parsed from the model's JSON.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ParsedAnswer:
    """An answer taken apart.

    Attributes:
        content: the text for the reader, without the calls.
        tool_calls: in the order in which the model wrote them.
    """

    content: str
    tool_calls: tuple[ToolCall, ...] = ()


class ToolParser(ABC):
    """One notation of tool calls. A family names its parser: `tool_parser = "hermes"` on its router.

    An instance serves one answer.
    """

    #: What a router names it by.
    name: ClassVar[str]

    @abstractmethod
    def parse(self, text: str) -> ParsedAnswer:
        """Takes a complete answer apart.

        A call that is cut off or is no valid JSON stays in the content as the model wrote it: a parser raises
        nothing for what a model may say.
        """
