# SPDX-License-Identifier: Apache-2.0
"""Results of requests, complete or token by token, in vLLM's form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FinishReason = Literal["stop", "length", "abort"]


class Logprob(NamedTuple):
    """Log probability of one token at one position, of the model's own distribution.

    Attributes:
        logprob: Natural logarithm, before bias, penalties, temperature and filters.
        rank: Place of the token among all, 1 for the most probable. Tokens of equal logits share a rank.
        decoded_token: Text of the token by itself; `None` without a tokenizer.
    """

    logprob: float
    rank: int
    decoded_token: str | None = None


@dataclass
class RequestMetrics:
    """Durations in seconds, measured on one monotonic clock, and counts, of all completions of a prompt.

    Attributes:
        queue_time: From being added to the start of its first step.
        time_to_first_token: From being added to its first token.
        decode_time: From its first token to its last.
        total_time: From being added to its end.
        preemptions: Number of times its cache blocks went to older requests and it was computed again.
        num_draft_tokens: Number of tokens that were guessed by speculation.
        num_accepted_tokens: Number of those that were kept.
    """

    queue_time: float = 0.0
    time_to_first_token: float = 0.0
    decode_time: float = 0.0
    total_time: float = 0.0
    preemptions: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0


@dataclass
class CompletionOutput:
    """One completion of a prompt.

    Attributes:
        index: Number of the completion among the `n` of its prompt.
        text: Generated text, without the stop string that ended it and, unless `skip_special_tokens=False`, without
            special tokens; empty without a tokenizer.
        token_ids: All generated tokens, including the one that ended the text.
        cumulative_logprob: Sum of the log probabilities of `token_ids` if `logprobs` were requested, else `None`.
        logprobs: For each token of `token_ids`, the tokens that were requested by id: the chosen one first, then the
            most probable ones in their order. `None` if none were requested.
        finish_reason: `"stop"` (end token, stop token or stop string), `"length"` (`max_tokens` or the context is
            used up), `"abort"` (ended from outside), or `None` while it runs.
        stop_reason: Stop string or token id that ended the text; `None` otherwise.
    """

    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None = None
    logprobs: list[dict[int, Logprob]] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None


@dataclass
class RequestOutput:
    """Result of one prompt.

    Attributes:
        request_id: Number of the request in its runner, as text.
        prompt: Text that the model saw (of a chat: the rendered template); `None` if token ids were given.
        prompt_token_ids: Tokens of the prompt.
        outputs: The `n` completions.
        finished: True once all completions have ended.
        metrics: Durations of the request, from being added to the end of its last completion.
        prompt_logprobs: For each token of the prompt, that token and the most probable ones in its place, by id;
            `None` for the first token, which nothing precedes. `None` if none were requested.
        num_cached_tokens: Number of tokens of the prompt that the key/value cache had already, from an earlier request
            with the same beginning; they were not computed again.
    """

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool = True
    metrics: RequestMetrics = field(default_factory=RequestMetrics)
    prompt_logprobs: list[dict[int, Logprob] | None] | None = None
    num_cached_tokens: int = 0

    @property
    def text(self) -> str:
        """Text of the first completion."""
        return self.outputs[0].text

    @property
    def token_ids(self) -> list[int]:
        """Generated tokens of the first completion."""
        return self.outputs[0].token_ids


#: The states that make a vector: of the last token, of all (their mean), or of the first.
Pooling = Literal["last", "mean", "cls"]


@dataclass(frozen=True)
class EmbeddingOutput:
    """Embedding of one prompt.

    Attributes:
        embedding: Vector [hidden_size], float32.
        prompt_token_ids: Tokens of the prompt.
    """

    embedding: npt.NDArray[np.float32]
    prompt_token_ids: list[int]


@dataclass(frozen=True)
class StreamChunk:
    """One token of one completion while it is generated.

    The texts of a completion's chunks, one after another, are exactly the `text` of its output.

    Attributes:
        prompt_index: Place of the prompt in the call.
        index: Number of the completion among the `n` of its prompt.
        text: Text that became final with this token; may be empty while a character or a possible stop string is
            incomplete.
        token_id: The token.
        finish_reason: Set on the last chunk of a completion.
        logprobs: Of this token, if requested; see `CompletionOutput.logprobs`.
        output: Whole result, on the last chunk of a prompt.
    """

    prompt_index: int
    index: int
    text: str
    token_id: int
    finish_reason: FinishReason | None = None
    logprobs: dict[int, Logprob] | None = None
    output: RequestOutput | None = None
