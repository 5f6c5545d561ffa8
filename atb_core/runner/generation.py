# SPDX-License-Identifier: Apache-2.0
"""The loop that turns requests into tokens: schedule, run the model, sample, append."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable

import torch

from atb_core.features.step import KVCache, Step
from atb_core.runner.block_manager import BlockManager
from atb_core.runner.outputs import Logprob, StreamChunk
from atb_core.runner.request import Request
from atb_core.runner.sampler import Sampler
from atb_core.runner.scheduler import Scheduler
from atb_core.runner.step_inputs import StepInputs

# Bound on the logits of a prompt that are held at a time for their log probabilities.
_LOGITS_BYTES = 1 << 28


class Generation:
    """Requests that are served together; `close` frees all their blocks.

    `forward` runs the model on a step and returns logits [requests, vocab]. `lock` is held during each step by all that
    share `forward` and `blocks`. `wait` is called with it when they have all blocks; it returns after some may be free,
    or `False` if nobody is about to free any. The other arguments are those of `ModelRunner`.

    Attributes:
        attended: Tells whether a thread does nothing but run it to its end.
    """

    def __init__(
        self,
        forward: Callable[[Step], torch.Tensor],
        blocks: BlockManager,
        kv_cache: KVCache,
        *,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        max_model_len: int,
        vocab_size: int,
        lock: threading.RLock | None = None,
        wait: Callable[[], bool] = lambda: False,
        attended: bool = False,
    ) -> None:
        self.attended = attended
        self._forward = forward
        self._wait = wait
        self._vocab_size = vocab_size
        self._lock = lock or threading.RLock()
        self.scheduler = Scheduler(blocks, max_num_seqs, max_num_batched_tokens)
        self._inputs = StepInputs(max_num_seqs, blocks.blocks_for(max_model_len), blocks.block_size, kv_cache)
        self._sampler = Sampler()

    def step(self) -> list[StreamChunk]:
        """Runs the model once and returns one new token for each request that took part.

        An exception, a KeyboardInterrupt included, ends all requests of this generation and frees their blocks.
        """
        with self._lock:
            try:
                return self._step()
            except BaseException:
                self.close()
                raise

    def _step(self) -> list[StreamChunk]:
        while (batch := self.scheduler.next_batch()) is None:
            if not self.scheduler.unfinished:  # closed by another thread
                return []
            if not self._wait():
                raise self.scheduler.too_few_blocks()
        requests = batch.requests
        if batch.is_prefill:
            for request in requests:
                request.mark_started()
            logits = self._prefill(requests)
        else:
            logits = self._forward(self._inputs.decode(requests))
        chunks = []
        for request, (token_id, logprobs) in zip(requests, self._sampler.sample(logits, requests), strict=True):
            if logprobs is not None:
                logprobs = request.with_text(logprobs)
            text = request.append(token_id, logprobs)
            reason, number = request.completion.finish_reason, request.completion.index
            output = request.result if request.result.finished else None
            chunks.append(StreamChunk(request.prompt_index, number, text, token_id, reason, logprobs, output))
        self.scheduler.remove_finished()
        return chunks

    def _prefill(self, requests: list[Request]) -> torch.Tensor:
        """Returns the logits [requests, vocab] at the last tokens of prompts."""
        step = self._inputs.prefill(requests)
        # The scheduler runs a request that wants them alone.
        if requests[0].wants_prompt_logprobs:
            return self._prefill_with_logprobs(requests[0], step)
        return self._forward(step)

    def _prefill_with_logprobs(self, request: Request, step: Step) -> torch.Tensor:
        """Runs one prompt once for each part of its logits and keeps its log probabilities.

        Each run writes the same to the cache; only the logits that it is asked for differ.
        """
        prompt, count = request.result.prompt_token_ids, request.params.prompt_logprobs
        assert count is not None
        entries: list[dict[int, Logprob] | None] = [None]
        while True:
            start = len(entries) - 1
            end = min(len(prompt), start + max(1, _LOGITS_BYTES // (4 * self._vocab_size)))
            logits = self._forward(dataclasses.replace(step, lm_head_indices=torch.arange(start, end)))
            followed = prompt[start + 1 : end + 1]
            part = self._sampler.prompt_logprobs(logits[: len(followed)], followed, count)
            entries += [request.with_text(logprobs) for logprobs in part]
            if end == len(prompt):
                break
        request.result.prompt_logprobs = entries
        request.wants_prompt_logprobs = False
        return logits[-1:]

    def close(self) -> None:
        """Aborts unfinished requests and frees all blocks. May be called again."""
        with self._lock:
            for request in self.scheduler.clear():
                request.abort()
