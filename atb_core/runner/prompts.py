# SPDX-License-Identifier: Apache-2.0
"""Prompts as callers pass them, checked and turned into token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from atb_core.errors import ContextLengthError, RequestError, shown
from atb_core.runner.sampling_params import as_int

if TYPE_CHECKING:
    from atb_core.runner.tokenizer import Tokenizer


class ContentPart(TypedDict):
    """Part of a message's content; only text is supported."""

    type: str
    text: str


class _Role(TypedDict):
    role: str


class ChatMessage(_Role, total=False):
    """One message of a chat; a template may know further keys."""

    content: str | list[ContentPart] | None
    tool_calls: list[dict[str, Any]]
    tool_call_id: str
    name: str


class TextPrompt(TypedDict):
    """Text to be continued, as a dict."""

    prompt: str


class TokensPrompt(TypedDict):
    """Token ids to be continued, as a dict."""

    prompt_token_ids: list[int]


# One prompt: text or token ids to be continued, or a chat to which the model's template is applied. Plain dicts are
# accepted as messages too: their keys are checked when they are used.
Chat = Sequence[ChatMessage] | Sequence[dict[str, str]] | Sequence[dict[str, Any]]
Prompt = str | Sequence[int] | Chat | TextPrompt | TokensPrompt
Prompts = Prompt | Sequence[Prompt]

# Templates drop or misread what they do not know, so a typing error in a role would silently change the chat.
_ROLES = frozenset(
    {"system", "developer", "user", "assistant", "tool", "function", "ipython", "environment", "observation"}
)
_ADVICE = (
    "Pass text, a list of token ids, a chat (a list of {'role': ..., 'content': ...}), {'prompt': ...}, "
    "{'prompt_token_ids': ...}, or a list of these."
)


class EncodedPrompt(NamedTuple):
    """A prompt ready to run. `text` is `None` if the caller gave token ids."""

    text: str | None
    token_ids: list[int]


def split_prompts(prompts: Prompts) -> list[Any]:
    """Returns the prompts of a call as a list; RequestError if they are neither one prompt nor a list."""
    if isinstance(prompts, str) or _is_prompt_dict(prompts):
        return [prompts]
    if isinstance(prompts, Mapping) or not _is_listlike(prompts):
        raise RequestError(f"Prompts cannot be of type {type(prompts).__name__}", hint=_ADVICE)
    # A range of token ids may be too long to be copied before its length is checked.
    return [prompts] if len(prompts) and _begins_one_prompt(prompts[0]) else list(prompts)


def split_chats(messages: Any) -> list[Any]:
    """Returns the chats of a call as a list; RequestError if they are neither one chat nor a list of chats."""
    chats = split_prompts(messages)
    for chat in chats:
        if isinstance(chat, (str, Mapping)) or not _is_listlike(chat) or not all(isinstance(m, Mapping) for m in chat):
            raise RequestError(
                "messages must be a chat, that is a list of {'role': ..., 'content': ...}, or a list of chats",
                hint="Text and token ids are continued by generate().",
            )
    return chats


def _begins_one_prompt(item: Any) -> bool:
    """Returns True for a message of a chat and for a token id."""
    return (isinstance(item, Mapping) and not _is_prompt_dict(item)) or as_int(item) is not None


def _is_prompt_dict(value: Any) -> bool:
    return isinstance(value, Mapping) and ("prompt" in value or "prompt_token_ids" in value)


class PromptEncoder:
    """Turns single prompts into token ids and checks them against a model.

    Args:
        tokenizer: `None` if the model was opened without one.
        vocab_size: Number of token ids.
        max_model_len: Length of the longest context; a prompt is shorter.
        add_generation_prompt: Ends chats with the opening of the assistant's turn.
        tools: JSON schemas of functions that the model may call, for the chat template.
        chat_template_kwargs: Passed to the chat template, which must know them.
    """

    def __init__(
        self,
        tokenizer: Tokenizer | None,
        vocab_size: int,
        max_model_len: int,
        add_generation_prompt: bool = True,
        tools: Sequence[dict[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.vocab_size = vocab_size
        self.max_model_len = max_model_len
        self._chat_template_kwargs = _template_kwargs(chat_template_kwargs, tools, add_generation_prompt)

    def encode(self, prompt: Prompt, name: str) -> EncodedPrompt:
        """Checks one prompt and turns it into token ids.

        Args:
            prompt: Text, token ids, a chat, or a dict with text or token ids.
            name: Name of the prompt in messages, for example `"Prompt 2"`.

        Raises:
            RequestError: It is of an unknown kind, empty, has ids outside the vocabulary, or is too long.
        """
        if _is_prompt_dict(prompt):
            prompt = _unwrapped(prompt, name)
        if isinstance(prompt, str):
            tokenizer = self._needed_tokenizer(name)
            _check_text(prompt, name)
            result = EncodedPrompt(prompt, tokenizer.encode(prompt))
            self._check_vocabulary(result.token_ids, name)
        elif isinstance(prompt, Mapping) or not _is_listlike(prompt):
            raise RequestError(f"{name} is of type {type(prompt).__name__}", hint=_ADVICE)
        else:
            if len(prompt) and as_int(prompt[0]) is not None:
                self._check_length(len(prompt), name)
            items = list(prompt)
            if any(isinstance(item, Mapping) for item in items):
                result = self._encode_chat(items, name)
            else:
                result = EncodedPrompt(None, self._check_ids(items, name))
        self._check_length(len(result.token_ids), name)
        return result

    def encode_all(self, prompts: Sequence[Prompt]) -> list[EncodedPrompt]:
        """Returns text and tokens of several prompts, which errors name by their numbers."""
        names = ["The prompt"] if len(prompts) == 1 else [f"Prompt {number}" for number in range(len(prompts))]
        return [self.encode(prompt, name) for prompt, name in zip(prompts, names, strict=True)]

    def _needed_tokenizer(self, name: str) -> Tokenizer:
        if self.tokenizer is None:
            raise RequestError(
                f"{name} is text, but this runner was opened without a tokenizer",
                hint="Pass token ids, or open the model with load_tokenizer=True.",
            )
        return self.tokenizer

    def _encode_chat(self, messages: Sequence[Any], name: str) -> EncodedPrompt:
        for number, message in enumerate(messages):
            _check_message(message, f"{name}, message {number}")
        tokenizer = self._needed_tokenizer(name)
        tokenizer.check_chat_template_kwargs(self._chat_template_kwargs)
        plain = [dict(message) for message in messages]
        result = EncodedPrompt(*tokenizer.encode_chat(plain, **self._chat_template_kwargs))
        self._check_vocabulary(result.token_ids, name)
        return result

    def _check_vocabulary(self, token_ids: list[int], name: str) -> None:
        largest = max(token_ids, default=0)
        if largest >= self.vocab_size:
            raise RequestError(
                f"{name} becomes the token id {largest}, but the model has ids from 0 to {self.vocab_size - 1}",
                hint="Its tokenizer belongs to another model, or tokens were added to it and not to the model.",
            )

    def _check_ids(self, items: Sequence[Any], name: str) -> list[int]:
        ids = []
        for position, item in enumerate(items):
            token_id = as_int(item)
            if token_id is None:
                raise RequestError(
                    f"{name} has {shown(item)} (of type {type(item).__name__}) at position {position}, which is "
                    "not a token id",
                    hint=_ADVICE,
                )
            if not 0 <= token_id < self.vocab_size:
                raise RequestError(
                    f"{name} has the token id {shown(token_id)} at position {position}; the model has ids from 0 "
                    f"to {self.vocab_size - 1}",
                    hint="Encode the text with the tokenizer that belongs to this model.",
                )
            ids.append(token_id)
        return ids

    def _check_length(self, length: int, name: str) -> None:
        if length == 0:
            raise RequestError(f"{name} is empty", hint="Give it at least one token.")
        if length >= self.max_model_len:
            raise ContextLengthError(
                f"{name} has {length} tokens; the context holds {self.max_model_len}, one of them for the "
                "answer at least",
                hint="Shorten the prompt, or open the model with a larger max_model_len if it allows one.",
            )


def _unwrapped(prompt: Any, name: str) -> Any:
    """Returns the text or the token ids in a prompt that is a dict."""
    if set(prompt) - {"prompt", "prompt_token_ids"}:
        raise RequestError(f"{name} has the keys {shown([*prompt])[1:-1]}", hint=_ADVICE)
    if "prompt_token_ids" not in prompt:
        if not isinstance(prompt["prompt"], str):
            raise RequestError(f"{name}: 'prompt' must be text, not {type(prompt['prompt']).__name__}", hint=_ADVICE)
        return prompt["prompt"]
    ids = prompt["prompt_token_ids"]
    if "prompt" in prompt or isinstance(ids, str) or not _is_listlike(ids):
        raise RequestError(f"{name}: 'prompt_token_ids' must be a list of token ids, without 'prompt'", hint=_ADVICE)
    return ids


def _template_kwargs(
    kwargs: Mapping[str, Any] | None, tools: Sequence[dict[str, Any]] | None, add_generation_prompt: bool
) -> dict[str, Any]:
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise RequestError(f"chat_template_kwargs must be a dict, not {type(kwargs).__name__}")
    result = dict(kwargs or {})
    if tools is not None:
        if not isinstance(tools, (list, tuple)) or not all(isinstance(tool, Mapping) for tool in tools):
            raise RequestError(f"tools must be a list of JSON schemas of functions, not {tools!r:.100}")
        if "tools" in result:
            raise RequestError("tools is given twice, by itself and in chat_template_kwargs")
        result["tools"] = list(tools)
    if not add_generation_prompt:
        result["add_generation_prompt"] = False
    return result


def _check_message(message: Any, name: str) -> None:
    if not isinstance(message, Mapping):
        raise RequestError(f"{name} is of type {type(message).__name__}, not a dict", hint=_ADVICE)
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise RequestError(
            f"{name} has the role {shown(role)}",
            hint=f"Roles are {', '.join(sorted(_ROLES))}; most models know system, user, assistant and tool.",
        )
    content = message.get("content")
    if content is None and message.get("tool_calls"):
        return
    if not isinstance(content, (str, list)):
        raise RequestError(f"{name} has content of type {type(content).__name__}; it must be a string")
    if isinstance(content, str):
        return _check_text(content, name)
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        if kind != "text" or not isinstance(part.get("text"), str):
            raise RequestError(
                f"{name} has content of type {shown(kind)}; only text is supported",
                hint="Give the content as a string, or as a list of {'type': 'text', 'text': ...}.",
            )
        _check_text(part["text"], name)


def _check_text(text: str, name: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(
            f"{name} has half of a surrogate pair, {text[error.start]!a}, at character {error.start}: it is no text",
            hint="Decode the bytes that it comes from as UTF-8.",
        ) from None


def _is_listlike(value: Any) -> bool:
    """Returns True for lists, tuples, and one-dimensional arrays and tensors."""
    if isinstance(value, (bytes, bytearray)):
        return False
    return isinstance(value, Sequence) or getattr(value, "ndim", None) == 1
