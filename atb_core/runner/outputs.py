# SPDX-License-Identifier: Apache-2.0
"""What a request gives back, whole or piece by piece."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

__all__ = ["FinishReason", "RequestMetrics", "RequestOutput", "StreamChunk", "TokenLogprobs"]

FinishReason = Literal["stop", "length", "abort"]


class TokenLogprobs(NamedTuple):
    """Natural logarithms of probabilities at one step, of the model's own distribution.

    Attributes:
        token_id: the chosen token.
        logprob: its log probability.
        top: the most probable tokens, best first, and their log probabilities; as many as were asked for.
    """

    token_id: int
    logprob: float
    top: dict[int, float]


@dataclass
class RequestMetrics:
    """Durations in seconds, measured on one monotonic clock.

    Attributes:
        queue_time: from being added to the start of its first step.
        time_to_first_token: from being added to its first token.
        decode_time: from its first token to its last.
        total_time: from being added to its end.
        preemptions: how often it gave up its cache blocks to older requests and was computed again.
    """

    queue_time: float = 0.0
    time_to_first_token: float = 0.0
    decode_time: float = 0.0
    total_time: float = 0.0
    preemptions: int = 0


@dataclass
class RequestOutput:
    """The result of one request.

    Attributes:
        prompt: the text the model saw (for a chat: the rendered template); ``None`` if token ids were given.
        prompt_token_ids: its tokens.
        text: the generated text, without special tokens, without the stop string that ended it.
        token_ids: every generated token, the one that ended the text included.
        finish_reason: ``"stop"`` (end-of-sequence token, stop token or stop string), ``"length"``
            (``max_tokens`` or the context is used up) or ``"abort"`` (ended from outside).
        stop_reason: the stop string or token id that ended it; ``None`` otherwise.
        logprobs: one entry per token of ``token_ids`` if they were asked for, else ``None``.
        metrics: durations.
    """

    prompt: str | None
    prompt_token_ids: list[int]
    text: str
    token_ids: list[int]
    finish_reason: FinishReason
    stop_reason: str | int | None = None
    logprobs: list[TokenLogprobs] | None = None
    metrics: RequestMetrics = field(default_factory=RequestMetrics)


@dataclass(frozen=True)
class StreamChunk:
    """One token of one request while it is generated.

    The texts of a request's chunks, one after another, are exactly the ``text`` of its output.

    Attributes:
        index: which prompt of the call this belongs to.
        text: what is new and certain; may be empty while a character or a possible stop string is incomplete.
        token_id: the token.
        finish_reason: set on a request's last chunk.
        logprobs: of this token, if they were asked for.
        output: the whole result, on a request's last chunk.
    """

    index: int
    text: str
    token_id: int
    finish_reason: FinishReason | None = None
    logprobs: TokenLogprobs | None = None
    output: RequestOutput | None = None
