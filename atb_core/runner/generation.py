# SPDX-License-Identifier: Apache-2.0
"""The loop that turns requests into tokens: schedule, run the model, sample, append."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

import torch

from atb_core.features.step import KVCache, Step
from atb_core.runner.block_manager import BlockManager
from atb_core.runner.outputs import StreamChunk
from atb_core.runner.request import Request
from atb_core.runner.sampler import Sampler
from atb_core.runner.scheduler import Scheduler
from atb_core.runner.step_inputs import StepInputs

__all__ = ["Generation"]


class Generation:
    """Requests that are served together. Used as a context manager: leaving it frees every block.

    Args:
        forward: runs the model on a step and returns logits [requests, vocab].
        blocks: owner of the cache's blocks; may be shared with other generations.
        kv_cache: the cache that these blocks divide.
        max_batch_size: most requests running at a time.
        max_prefill_tokens: most tokens in one prefill step of several requests.
        max_model_len: the longest context.
        lock: held during each step, by all who share ``forward`` and ``blocks``.
    """

    def __init__(
        self,
        forward: Callable[[Step], torch.Tensor],
        blocks: BlockManager,
        kv_cache: KVCache,
        *,
        max_batch_size: int,
        max_prefill_tokens: int,
        max_model_len: int,
        lock: threading.RLock | None = None,
    ) -> None:
        self._forward = forward
        self._lock = lock or threading.RLock()
        self._scheduler = Scheduler(blocks, max_batch_size, max_prefill_tokens)
        self._inputs = StepInputs(max_batch_size, blocks.blocks_for(max_model_len), blocks.block_size, kv_cache)
        self._sampler = Sampler()

    def __enter__(self) -> Generation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def has_work(self) -> bool:
        """True while some request is unfinished."""
        return self._scheduler.has_work

    def add(self, request: Request) -> None:
        """Puts a request in the line; it joins the running ones as soon as there is room."""
        self._scheduler.add(request)

    def abort(self, request: Request) -> None:
        """Ends one request and frees its blocks; its output keeps what was generated."""
        with self._lock:
            request.abort()
            self._scheduler.remove_finished()

    def step(self) -> list[StreamChunk]:
        """One run of the model: one new token for each request that took part.

        An exception, a KeyboardInterrupt included, ends all requests of this generation and frees their
        blocks.
        """
        with self._lock:
            try:
                return self._step()
            except BaseException:
                self.close()
                raise

    def _step(self) -> list[StreamChunk]:
        batch = self._scheduler.next_batch()
        requests = batch.requests
        if batch.is_prefill:
            for request in requests:
                request.mark_started()
            step = self._inputs.prefill(requests)
        else:
            step = self._inputs.decode(requests)
        logits = self._forward(step)
        chunks = []
        finished = False
        for request, sampled in zip(requests, self._sampler.sample(logits, requests), strict=True):
            text = request.append(sampled.token_id, sampled.logprobs)
            done = request.finish_reason is not None
            finished |= done
            chunks.append(
                StreamChunk(
                    request.index,
                    text,
                    sampled.token_id,
                    request.finish_reason,
                    sampled.logprobs,
                    request.output() if done else None,
                )
            )
        if finished:
            self._scheduler.remove_finished()
        return chunks

    def close(self) -> None:
        """Aborts what is unfinished and frees all blocks. May be called again."""
        with self._lock:
            for request in self._scheduler.clear():
                request.abort()

    def block_tables(self) -> list[list[int]]:
        """The tables of all unfinished requests: the blocks this generation owns."""
        return [request.block_table for request in (*self._scheduler.running, *self._scheduler.waiting)]
