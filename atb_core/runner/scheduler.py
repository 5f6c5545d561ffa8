# SPDX-License-Identifier: Apache-2.0
"""Chooses the requests that take part in the next step (continuous batching)."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from atb_core.errors import RequestError
from atb_core.runner.block_manager import BlockManager
from atb_core.runner.request import Request


class Batch(NamedTuple):
    """One step: either the prefill of some requests, or one token each for some requests."""

    is_prefill: bool
    requests: list[Request]


class Scheduler:
    """First come, first served; a new request joins the running ones as soon as there is room.

    A prefill takes as many waiting requests as fit in `max_num_batched_tokens` (one always goes, however long), in
    `max_num_seqs` and in the free blocks; one that wants log probabilities of its prompt goes alone. Otherwise every
    running request advances by one token. When that needs a block and none is free, the youngest running request gives
    its blocks back and is queued first, to be computed again: its tokens so far are kept and come out the same.
    """

    def __init__(self, blocks: BlockManager, max_num_seqs: int, max_num_batched_tokens: int) -> None:
        self._blocks = blocks
        self._max_num_seqs = max_num_seqs
        self._max_num_batched_tokens = max_num_batched_tokens
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []

    @property
    def unfinished(self) -> list[Request]:
        """The requests that run or wait."""
        return [*self.running, *self.waiting]

    def next_batch(self) -> Batch | None:
        """Chooses the next step and makes its blocks available.

        Returns:
            The step; `None` if nothing can run because the blocks belong to other generations.
        """
        admitted = self._admit()
        if admitted:
            return Batch(True, admitted)
        self._make_room_for_decode()
        return Batch(False, list(self.running)) if self.running else None

    def too_few_blocks(self) -> RequestError:
        """Returns the error for a step that nobody frees blocks for."""
        return RequestError(
            f"The key/value cache has {self._blocks.num_free} of {self._blocks.num_blocks} blocks free, "
            "too few for the next request, and the others belong to streams that are still open",
            hint="Finish or close the other streams first, or give the runner more num_blocks.",
        )

    def remove_finished(self) -> None:
        """Removes requests that have a finish reason and frees their blocks."""
        for request in self.running:
            if request.completion.finish_reason is not None:
                self._blocks.free(request.block_table)
        self.running = [request for request in self.running if request.completion.finish_reason is None]

    def clear(self) -> list[Request]:
        """Removes all requests, frees their blocks and returns them."""
        unfinished = self.unfinished
        for request in unfinished:
            self._blocks.free(request.block_table)
        self.running = []
        self.waiting.clear()
        return unfinished

    def _admit(self) -> list[Request]:
        admitted: list[Request] = []
        tokens = 0
        while self.waiting and len(self.running) < self._max_num_seqs:
            request = self.waiting[0]
            if admitted and (
                tokens + len(request) > self._max_num_batched_tokens
                or request.wants_prompt_logprobs
                or admitted[0].wants_prompt_logprobs
            ):
                break
            # One position more than the prefill writes: a request that could not take its first decode step
            # would be preempted at once.
            if not self._blocks.grow(request.block_table, min(len(request) + 1, request.max_total)):
                break
            self.waiting.popleft()
            self.running.append(request)
            admitted.append(request)
            tokens += len(request)
        return admitted

    def _make_room_for_decode(self) -> None:
        """Gives each running request a slot for its newest token, oldest first."""
        for request in sorted(self.running, key=lambda item: item.index):
            while request in self.running and not self._blocks.grow(request.block_table, len(request)):
                self._preempt(max(self.running, key=lambda item: item.index))

    def _preempt(self, request: Request) -> None:
        self._blocks.free(request.block_table)
        request.result.metrics.preemptions += 1
        self.running.remove(request)
        self.waiting.appendleft(request)
