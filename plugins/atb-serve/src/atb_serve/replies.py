# SPDX-License-Identifier: Apache-2.0
"""Bodies of answers, as `openai`'s clients read them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType


class ProblemFacts(msgspec.Struct):
    """The part of a refusal that names the fault."""

    message: str
    type: str
    param: str | None
    code: str | None


class Problem(msgspec.Struct):
    """Answer to a request that is refused."""

    error: ProblemFacts


class CachedTokens(msgspec.Struct):
    """Tokens of prompts that the cache had from earlier requests."""

    cached_tokens: int


class Usage(msgspec.Struct):
    """Tokens of a request; while it runs, without those that the cache had."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens | UnsetType = UNSET


class TextLogprobs(msgspec.Struct):
    """Log probabilities of a text, one entry for each token."""

    text_offset: list[int]
    token_logprobs: list[float | None]
    tokens: list[str]
    top_logprobs: list[dict[str, float] | None]


class TextChoice(msgspec.Struct):
    """A completion, or a piece of one."""

    index: int
    text: str
    logprobs: TextLogprobs | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None


class TextCompletion(msgspec.Struct):
    """Answer of `/v1/completions`, and each event of its stream."""

    id: str
    created: int
    model: str
    choices: list[TextChoice]
    object: Literal["text_completion"] = "text_completion"
    usage: Usage | UnsetType | None = UNSET


class TokenLogprob(msgspec.Struct):
    """A token with its log probability; `bytes` is `None` for a part of a character."""

    token: str
    logprob: float
    bytes: list[int] | None


class ContentLogprob(TokenLogprob):
    """A token of an answer with the most probable ones in its place."""

    top_logprobs: list[TokenLogprob]


class ChatLogprobs(msgspec.Struct):
    """Log probabilities of an answer."""

    content: list[ContentLogprob]
    refusal: None = None


class CalledFunction(msgspec.Struct):
    """A call; in a stream `arguments` comes in pieces and `name` with the first."""

    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET


class CalledTool(msgspec.Struct, kw_only=True):
    """A tool call, or a piece of one with its `index`."""

    index: int | UnsetType = UNSET
    id: str | UnsetType = UNSET
    type: str | UnsetType = UNSET
    function: CalledFunction


class ChatMessage(msgspec.Struct):
    """The assistant's message."""

    content: str | None
    role: Literal["assistant"] = "assistant"
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[CalledTool] | UnsetType = UNSET
    refusal: None = None


class ChatDelta(msgspec.Struct):
    """A piece of the assistant's message."""

    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[CalledTool] | UnsetType = UNSET


class ChatChoice(msgspec.Struct):
    """One answer."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None


class ChatChunkChoice(msgspec.Struct):
    """A piece of one answer."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None


class ChatCompletion(msgspec.Struct):
    """Answer of `/v1/chat/completions`."""

    id: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    object: Literal["chat.completion"] = "chat.completion"


class ChatChunk(msgspec.Struct):
    """Event of a stream of `/v1/chat/completions`."""

    id: str
    created: int
    model: str
    choices: list[ChatChunkChoice]
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    usage: Usage | UnsetType | None = UNSET


class EmbeddingData(msgspec.Struct):
    """A vector, as numbers or as the base64 text of its float32 in little-endian order."""

    index: int
    embedding: list[float] | str
    object: Literal["embedding"] = "embedding"


class EmbeddingUsage(msgspec.Struct):
    """Tokens of a request for embeddings."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(msgspec.Struct):
    """Answer of `/v1/embeddings`."""

    model: str
    data: list[EmbeddingData]
    usage: EmbeddingUsage
    object: Literal["list"] = "list"


class ModelCard(msgspec.Struct):
    """A served model."""

    id: str
    created: int
    max_model_len: int
    object: Literal["model"] = "model"
    owned_by: str = "atb"
    #: Name of the model that an adapter belongs to.
    parent: str | None = None


class ModelList(msgspec.Struct):
    """Answer of `/v1/models`."""

    data: list[ModelCard]
    object: Literal["list"] = "list"


class Tokens(msgspec.Struct):
    """Answer of `/tokenize`."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class Text(msgspec.Struct):
    """Answer of `/detokenize`."""

    prompt: str


encode_json = msgspec.json.Encoder().encode


def event(body: Any) -> bytes:
    """Returns a body as one event of a stream."""
    return b"data: " + encode_json(body) + b"\n\n"


class TextEvents:
    """Makes events that differ in one text alone, of which the rest is encoded once.

    Args:
        make: Returns the body with a text, which is in it once.
    """

    def __init__(self, make: Callable[[str], Any]) -> None:
        mark = uuid.uuid4().hex
        self._before, _, self._after = event(make(mark)).partition(encode_json(mark))

    def __call__(self, text: str) -> bytes:
        """Returns the event with a text."""
        return self._before + encode_json(text) + self._after


DONE = b"data: [DONE]\n\n"
