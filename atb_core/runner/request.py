# SPDX-License-Identifier: Apache-2.0
"""One request on its way through the runner."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

from atb_core.runner.detokenizer import Detokenizer
from atb_core.runner.outputs import FinishReason, RequestMetrics, RequestOutput, TokenLogprobs
from atb_core.runner.sampling_params import SamplingParams

__all__ = ["Request"]


@dataclass(eq=False)
class Request:
    """A prompt, what has been generated after it, and the cache blocks that hold it.

    ``token_ids`` is the prompt followed by the output. The last token is never in the cache yet: it is the
    input of the next step. After a preemption nothing is in the cache and the next step is a prefill of all
    tokens.

    Attributes:
        index: place in the caller's list; also the order of arrival.
        max_total: most tokens, prompt included.
        stop_ids: tokens that end the text.
        block_table: set by the scheduler through the block manager.
        seen: ids of prompt and output for the repetition penalty, ``None`` if there is no penalty.
    """

    index: int
    prompt: str | None
    prompt_token_ids: list[int]
    params: SamplingParams
    max_total: int
    stop_ids: frozenset[int]
    detokenizer: Detokenizer | None = None

    token_ids: list[int] = field(init=False)
    block_table: list[int] = field(init=False, default_factory=list)
    finish_reason: FinishReason | None = field(init=False, default=None)
    stop_reason: str | int | None = field(init=False, default=None)
    logprobs: list[TokenLogprobs] | None = field(init=False, default=None)
    seen: set[int] | None = field(init=False, default=None)
    rng: random.Random | None = field(init=False, default=None)
    preemptions: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.token_ids = list(self.prompt_token_ids)
        if self.params.logprobs is not None:
            self.logprobs = []
        if self.params.repetition_penalty != 1.0:
            self.seen = set(self.prompt_token_ids)
        if not self.params.greedy:
            # Python documents this generator's stream as stable across versions, and it costs 0.1 us a
            # number.
            self.rng = random.Random(self.params.seed)
        self._added = time.monotonic()
        self._started: float | None = None
        self._first_token: float | None = None
        self._ended: float | None = None

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def output_token_ids(self) -> list[int]:
        """A copy of the generated tokens."""
        return self.token_ids[len(self.prompt_token_ids) :]

    def mark_started(self) -> None:
        """Notes the time of the first step; later calls change nothing."""
        if self._started is None:
            self._started = time.monotonic()

    def append(self, token_id: int, logprobs: TokenLogprobs | None) -> str:
        """Adds a generated token and decides whether it is the last.

        Returns:
            The text that became certain with it.
        """
        if self._first_token is None:
            self._first_token = time.monotonic()
        self.token_ids.append(token_id)
        if self.seen is not None:
            self.seen.add(token_id)
        if self.logprobs is not None and logprobs is not None:
            self.logprobs.append(logprobs)
        if token_id in self.stop_ids:
            self.stop_reason = token_id
            return self._finish("stop")
        text = ""
        if self.detokenizer is not None:
            text = self.detokenizer.push(token_id)
            if self.detokenizer.stopped_by is not None:
                self.stop_reason = self.detokenizer.stopped_by
                return text + self._finish("stop")
        if len(self.token_ids) >= self.max_total:
            return text + self._finish("length")
        return text

    def abort(self) -> str:
        """Ends the request from outside; returns the text that was held back."""
        return "" if self.finish_reason is not None else self._finish("abort")

    def _finish(self, reason: FinishReason) -> str:
        self._ended = time.monotonic()
        rest = ""
        if self.detokenizer is not None:
            rest = self.detokenizer.finish()
            if reason != "stop" and self.detokenizer.stopped_by is not None:
                reason, self.stop_reason = "stop", self.detokenizer.stopped_by
        self.finish_reason = reason
        return rest

    def output(self) -> RequestOutput:
        """The result so far; complete once ``finish_reason`` is set."""
        ended = self._ended if self._ended is not None else time.monotonic()
        started = self._started if self._started is not None else ended
        first = self._first_token if self._first_token is not None else ended
        return RequestOutput(
            prompt=self.prompt,
            prompt_token_ids=self.prompt_token_ids,
            text=self.detokenizer.text if self.detokenizer is not None else "",
            token_ids=self.output_token_ids,
            finish_reason=self.finish_reason or "abort",
            stop_reason=self.stop_reason,
            logprobs=self.logprobs,
            metrics=RequestMetrics(
                queue_time=started - self._added,
                time_to_first_token=first - self._added,
                decode_time=ended - first,
                total_time=ended - self._added,
                preemptions=self.preemptions,
            ),
        )
