# SPDX-License-Identifier: Apache-2.0
"""Encodes and decodes text and renders chats, by a checkpoint's files."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atb_core.checkpoint.base import TokenizerParts
from atb_core.checkpoint.guarded_tokenizer import without_training
from atb_core.checkpoint.opening import checkpoint_at
from atb_core.checkpoint.tokenizer_json import library_errors
from atb_core.errors import RequestError, TokenizerError, shown
from atb_core.names import command
from atb_core.runner.chat_template import NO_CHAT, ChatTemplate, Message
from atb_core.runner.text_decoder import TextDecoder, TextDecoderFactory

if TYPE_CHECKING:
    import tokenizers

__all__ = ["Tokenizer"]

# Names for a message's thoughts in the formats in use; templates read the first or the second.
_THOUGHTS = ("reasoning_content", "thinking", "reasoning")


class Tokenizer:
    """A checkpoint's tokenizer.

    Args:
        parts: Contents of the checkpoint's files.
    """

    def __init__(self, parts: TokenizerParts) -> None:
        self._parts = parts
        without_training(parts.backend)

    @classmethod
    def from_path(cls, path: Path) -> Tokenizer:
        """Loads the tokenizer of a model directory or of a GGUF file.

        Raises:
            ModelNotFoundError: There is nothing at `path`.
            TokenizerError: There is no tokenizer, or it is damaged or of an unsupported kind.
        """
        return cls(checkpoint_at(path).tokenizer_parts())

    def with_chat_template(self, source: str) -> Tokenizer:
        """Returns the same tokenizer with another chat template, Jinja source, for all chats."""
        return Tokenizer(dataclasses.replace(self._parts, chat_templates={"default": source}))

    @property
    def chat_templates(self) -> dict[str, str]:
        """Jinja sources by name, `default` and perhaps `tool_use`; empty if chats cannot be rendered."""
        return dict(self._parts.chat_templates)

    @property
    def backend(self) -> tokenizers.Tokenizer:
        """Tokenizer of the `tokenizers` library."""
        return self._parts.backend

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """Tokens that end a text."""
        return self._parts.eos_token_ids

    @property
    def has_chat_template(self) -> bool:
        """True if chats can be rendered."""
        return bool(self._parts.chat_templates)

    @property
    def thinks(self) -> bool:
        """True if a chat template knows thoughts, which `</think>` ends."""
        return any("</think>" in source for source in self._parts.chat_templates.values())

    @cached_property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included; a model's logits may have more columns."""
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Returns the token ids of a text.

        Args:
            text: The text; special tokens that are written out in it are recognised.
            add_special_tokens: Puts BOS (EOS) where the checkpoint wants them.

        Raises:
            RequestError: The text is not valid Unicode.
        """
        try:
            text.encode()
        except (UnicodeEncodeError, AttributeError) as error:
            raise RequestError(f"The prompt cannot be turned into tokens: {error}") from None
        with library_errors("The tokenizer fails"):
            ids: list[int] = self.backend.encode(text, add_special_tokens=add_special_tokens).ids
        if add_special_tokens and self._parts.bos_id is not None and ids[:1] != [self._parts.bos_id]:
            ids = [self._parts.bos_id, *ids]
        if add_special_tokens and self._parts.eos_id is not None and ids[-1:] != [self._parts.eos_id]:
            ids = [*ids, self._parts.eos_id]
        return ids

    def decode(self, token_ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """Returns the text of tokens."""
        with library_errors("The tokenizer fails"):
            return str(self.backend.decode(list(token_ids), skip_special_tokens=skip_special_tokens))

    def text_decoder(self, prompt_token_ids: list[int], skip_special_tokens: bool = True) -> TextDecoder:
        """Returns a decoder for tokens that come one at a time after a prompt."""
        return self._decoder_factory(prompt_token_ids, skip_special_tokens)

    @cached_property
    def _decoder_factory(self) -> TextDecoderFactory:
        return TextDecoderFactory(self.backend)

    def apply_chat_template(
        self,
        messages: list[Message],
        *,
        tools: list[dict[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """Returns the prompt text of a conversation; encode it with `add_special_tokens=False`.

        Args:
            messages: Dicts with `role` and `content`. Keys whose value is `None` are left out. Content in parts is
                handed to a template that looks into it; another one gets the texts of the parts, each in a line.
            tools: JSON schemas of functions that the model may call.
            add_generation_prompt: Ends the text with the opening of the assistant's turn.
            variables: Further variables that the template knows, for example `enable_thinking`.

        Raises:
            RequestError: The template refuses the conversation.
            TokenizerError: There is no template, or it is faulty or exceeds its limits.
        """
        template = self._template("default" if tools is None else "tool_use")
        return template.render(
            [*map(_normalized, messages)], tools=tools, add_generation_prompt=add_generation_prompt, **variables
        )

    def encode_chat(self, messages: list[Message], **variables: Any) -> tuple[str | None, list[int]]:
        """Returns the prompt text of a conversation, if there is one, and its token ids; see `apply_chat_template`."""
        text = self.apply_chat_template(messages, **variables)
        return text, self.encode(text, add_special_tokens=False)

    def check_chat_template_kwargs(self, variables: Mapping[str, Any]) -> None:
        """Refuses variables that would change nothing: a template silently ignores what it does not know.

        Args:
            variables: Variables by name, as for `apply_chat_template`.

        Raises:
            RequestError: The conversation is among them, or the template does not know one.
            TokenizerError: There is no template.
        """
        if "messages" in variables:
            raise RequestError("The chat variable 'messages' is the conversation itself", hint="Pass it as the prompt.")
        template = self._template("default" if variables.get("tools") is None else "tool_use")
        for name, value in variables.items():
            # Every template gets this one, even if it has no turns to open.
            if value is not None and name != "add_generation_prompt" and not template.mentions(name):
                raise RequestError(
                    f"The model's chat template knows no variable {name!r}",
                    hint=f"Leave it out, or see its spelling: {command('show MODEL --template')} prints the template.",
                )

    def _template(self, name: str) -> ChatTemplate:
        sources = self._parts.chat_templates
        source = sources.get(name, sources.get("default"))
        if source is None:
            lack = (
                f" called default, only {shown([*sources])[1:-1]}" if sources else ": it was not made for conversations"
            )
            raise TokenizerError(
                f"This model has no chat template{lack}",
                hint=f"{NO_CHAT} For chats, put a chat_template.jinja into the model directory.",
            )
        return ChatTemplate(source, self._parts.special_tokens)


def _normalized(message: Message) -> Message:
    """Returns a message without keys that are `None`, and with its thoughts under each name that templates know."""
    if not isinstance(message, Mapping):
        raise RequestError(f"A message of a chat must be a dict, not {shown(message)}")
    given = {key: value for key, value in message.items() if value is not None}
    thoughts = next((given[name] for name in _THOUGHTS if name in given), None)
    if thoughts is not None:
        given["reasoning_content"] = thoughts
        given.setdefault("thinking", thoughts)
    return given
