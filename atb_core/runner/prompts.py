# SPDX-License-Identifier: Apache-2.0
"""What a caller may pass as prompts, checked and turned into token ids."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from atb_core.errors import RequestError

if TYPE_CHECKING:
    from atb_core.runner.tokenizer import Tokenizer

__all__ = ["Prompt", "PromptEncoder", "split_prompts"]

# Templates drop or misread what they do not know, so a typing error in a role would silently change the chat.
_ROLES = frozenset(
    {"system", "developer", "user", "assistant", "tool", "function", "ipython", "environment", "observation"}
)
_ADVICE = "Pass text, a list of token ids, a chat (a list of {'role': ..., 'content': ...}), or a list of these."


class Prompt(NamedTuple):
    """A prompt ready to run. ``text`` is ``None`` if the caller gave token ids."""

    text: str | None
    token_ids: list[int]


def split_prompts(prompts: Any) -> list[Any]:
    """The single prompts in what a caller passed: one of them, or a list of them.

    Raises:
        RequestError: it is neither.
    """
    if isinstance(prompts, str):
        return [prompts]
    if isinstance(prompts, Mapping) or not _is_listlike(prompts):
        raise RequestError(f"Prompts cannot be of type {type(prompts).__name__}", hint=_ADVICE)
    items = list(prompts)
    if items and (isinstance(items[0], Mapping) or _as_token_id(items[0]) is not None):
        return [items]
    return items


class PromptEncoder:
    """Turns single prompts into token ids and checks them against a model.

    Args:
        tokenizer: ``None`` if the model was opened without one.
        vocab_size: ids are below this.
        max_model_len: prompts are shorter than this, so that there is room for one token at least.
        chat_variables: passed to the chat template, which must know them.
    """

    def __init__(
        self,
        tokenizer: Tokenizer | None,
        vocab_size: int,
        max_model_len: int,
        chat_variables: Mapping[str, Any] | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._max_model_len = max_model_len
        self._chat_variables = dict(chat_variables or {})

    def encode(self, prompt: Any, name: str) -> Prompt:
        """Checks one prompt.

        Args:
            prompt: text, token ids or a chat.
            name: what to call it in messages, for example ``"Prompt 2"``.

        Raises:
            RequestError: it is of an unknown kind, empty, has ids outside the vocabulary, or is too long.
        """
        if isinstance(prompt, str):
            result = Prompt(prompt, self._encode(prompt, name, add_special_tokens=True))
        elif isinstance(prompt, Mapping) or not _is_listlike(prompt):
            raise RequestError(f"{name} is of type {type(prompt).__name__}", hint=_ADVICE)
        else:
            items = list(prompt)
            if any(isinstance(item, Mapping) for item in items):
                result = self._encode_chat(items, name)
            else:
                result = Prompt(None, self._check_ids(items, name))
        self._check_length(len(result.token_ids), name)
        return result

    def _needed_tokenizer(self, name: str) -> Tokenizer:
        if self._tokenizer is None:
            raise RequestError(
                f"{name} is text, but this runner was opened without a tokenizer",
                hint="Pass token ids, or open the model with load_tokenizer=True.",
            )
        return self._tokenizer

    def _encode_chat(self, messages: Sequence[Any], name: str) -> Prompt:
        for number, message in enumerate(messages):
            _check_message(message, f"{name}, message {number}")
        tokenizer = self._needed_tokenizer(name)
        tokenizer.check_chat_variables(self._chat_variables)
        plain = [_with_plain_text(message, name) for message in messages]
        text = tokenizer.apply_chat_template(plain, **self._chat_variables)
        return Prompt(text, self._encode(text, name, add_special_tokens=False))

    def _encode(self, text: str, name: str, add_special_tokens: bool) -> list[int]:
        ids = self._needed_tokenizer(name).encode(text, add_special_tokens=add_special_tokens)
        largest = max(ids, default=0)
        if largest >= self._vocab_size:
            raise RequestError(
                f"{name} becomes the token id {largest}, but the model has ids from 0 to {self._vocab_size - 1}",
                hint="Its tokenizer belongs to another model, or tokens were added to it and not to the model.",
            )
        return ids

    def _check_ids(self, items: Sequence[Any], name: str) -> list[int]:
        ids = []
        for position, item in enumerate(items):
            token_id = _as_token_id(item)
            if token_id is None:
                raise RequestError(
                    f"{name} has {item!r} (of type {type(item).__name__}) at position {position}, which is "
                    "not a token id",
                    hint=_ADVICE,
                )
            if not 0 <= token_id < self._vocab_size:
                raise RequestError(
                    f"{name} has the token id {token_id} at position {position}; the model has ids from 0 "
                    f"to {self._vocab_size - 1}",
                    hint="Encode the text with the tokenizer that belongs to this model.",
                )
            ids.append(token_id)
        return ids

    def _check_length(self, length: int, name: str) -> None:
        if length == 0:
            raise RequestError(f"{name} is empty", hint="Give it at least one token.")
        if length >= self._max_model_len:
            raise RequestError(
                f"{name} has {length} tokens; the context holds {self._max_model_len}, one of them for the "
                "answer at least",
                hint="Shorten the prompt, or open the model with a larger max_model_len if it allows one.",
            )


def _check_message(message: Any, name: str) -> None:
    if not isinstance(message, Mapping):
        raise RequestError(f"{name} is of type {type(message).__name__}, not a dict", hint=_ADVICE)
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise RequestError(
            f"{name} has the role {role!r}",
            hint=f"Roles are {', '.join(sorted(_ROLES))}; most models know system, user, assistant and tool.",
        )
    content = message.get("content")
    if content is None and message.get("tool_calls"):
        return
    is_parts = isinstance(content, list) and all(isinstance(part, Mapping) for part in content)
    if not isinstance(content, str) and not is_parts:
        raise RequestError(f"{name} has content of type {type(content).__name__}; it must be a string")


def _with_plain_text(message: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The message with content given as a list of text parts joined, one part a line."""
    plain = dict(message)
    if isinstance(plain.get("content"), list):
        for part in plain["content"]:
            if part.get("type") != "text" or not isinstance(part.get("text"), str):
                raise RequestError(
                    f"{name} has content of type {part.get('type')!r}; only text is understood",
                    hint="Give the content as a string.",
                )
        plain["content"] = "\n".join(part["text"] for part in plain["content"])
    return plain


def _is_listlike(value: Any) -> bool:
    """Lists, tuples, and one-dimensional arrays and tensors."""
    if isinstance(value, (bytes, bytearray)):
        return False
    return isinstance(value, Sequence) or getattr(value, "ndim", None) == 1


def _as_token_id(item: Any) -> int | None:
    if isinstance(item, bool):
        return None
    try:
        return operator.index(item)
    except TypeError:
        return None
