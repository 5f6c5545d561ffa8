# SPDX-License-Identifier: Apache-2.0
"""Conversations, and the two renderers of a chat template: ours and transformers'."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from atb_core.runner.chat_template import ChatTemplate, Message
from atb_core.runner.tokenizer import Tokenizer

_SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
_WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": 'The weather & <temperature> of a "city"',
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    },
}
_CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Köln", "days": 2}}}

#: A conversation of each kind that templates distinguish.
CHATS: dict[str, list[Message]] = {
    "one question": [{"role": "user", "content": "Hi <b>there</b> & 'you' \"all\"\t"}],
    "system and several turns": [
        {"role": "system", "content": " Be brief.\n"},
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "2 "},
        {"role": "user", "content": "你好 👋🏽"},
    ],
    "thoughts": [
        {"role": "user", "content": "why?"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nbecause"},
        {"role": "user", "content": "really?"},
        {"role": "assistant", "content": "<think>\nyes\n</think>\n\nyes"},
    ],
    "tool calls": [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [_CALL]},
        {"role": "tool", "content": "sunny"},
        {"role": "tool", "content": "hot"},
        {"role": "user", "content": "Thanks"},
    ],
}
#: Variables that a conversation is rendered with.
VARIABLES: dict[str, dict[str, Any]] = {
    "whole": {"add_generation_prompt": False},
    "prompt": {"add_generation_prompt": True},
    "tools": {"add_generation_prompt": True, "tools": [_WEATHER]},
    "thinking": {"add_generation_prompt": True, "enable_thinking": True},
    "no thinking": {"add_generation_prompt": True, "enable_thinking": False},
}


class Renderers(ABC):
    """Renders one template in two ways."""

    @abstractmethod
    def ours(self, chat: list[Message], **variables: Any) -> str:
        """Renders in our sandbox; raises RequestError or TokenizerError if the template refuses or fails."""

    @abstractmethod
    def transformers(self, chat: list[Message], **variables: Any) -> str:
        """Renders with transformers; raises jinja2's errors if the template refuses or fails."""


class SourceRenderers(Renderers):
    """Renders a template that is given as text."""

    def __init__(self, source: str) -> None:
        self.source = source

    def ours(self, chat: list[Message], **variables: Any) -> str:
        """Renders in our sandbox."""
        return ChatTemplate(self.source, _SPECIAL_TOKENS).render(chat, **variables)

    def transformers(self, chat: list[Message], **variables: Any) -> str:
        """Renders with transformers."""
        from transformers.utils.chat_template_utils import render_jinja_template

        rendered, _ = render_jinja_template([chat], chat_template=self.source, **_SPECIAL_TOKENS, **variables)
        return str(rendered[0])


class DirectoryRenderers(Renderers):
    """Renders the template of a directory with a tokenizer's files."""

    def __init__(self, directory: Path) -> None:
        from transformers import AutoTokenizer

        self._ours = Tokenizer.from_path(directory)
        self._theirs = AutoTokenizer.from_pretrained(directory)

    def ours(self, chat: list[Message], **variables: Any) -> str:
        """Renders in our sandbox."""
        return self._ours.apply_chat_template(chat, **variables)

    def transformers(self, chat: list[Message], **variables: Any) -> str:
        """Renders with transformers."""
        return str(self._theirs.apply_chat_template(chat, tokenize=False, **variables))
