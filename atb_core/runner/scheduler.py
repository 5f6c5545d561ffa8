# SPDX-License-Identifier: Apache-2.0
"""Chooses the requests that take part in the next step (continuous batching)."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from atb_core.errors import EngineError
from atb_core.runner.block_manager import BlockManager
from atb_core.runner.request import Request


class Batch(NamedTuple):
    """One step: either the prefill of some requests, or one token each for some requests."""

    is_prefill: bool
    requests: list[Request]


def _age(request: Request) -> int:
    return request.arrival


class Scheduler:
    """First come, first served; a new request joins the running ones as soon as there is room.

    A prefill takes as many waiting requests as fit in `max_num_batched_tokens` (one always goes, however long), in
    `max_num_seqs` and in the free blocks; one that wants log probabilities of its prompt goes alone. Otherwise every
    running request advances by one token. When blocks are needed and none is free, a running request gives its blocks
    back and is queued first, to be computed again: its tokens so far are kept and come out the same. That is the
    youngest of those whose callers do not read, which take part in no step, else the youngest of all.
    """

    def __init__(self, blocks: BlockManager, max_num_seqs: int, max_num_batched_tokens: int) -> None:
        self._blocks = blocks
        self._max_num_seqs = max_num_seqs
        self._max_num_batched_tokens = max_num_batched_tokens
        self._arrivals = itertools.count()
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []

    def add(self, requests: Iterable[Request]) -> None:
        """Queues new requests."""
        for request in requests:
            request.arrival = next(self._arrivals)
            self.waiting.append(request)

    def next_batch(self) -> Batch | None:
        """Chooses the next step and makes its blocks available; returns `None` if no request can run."""
        admitted = self._admit()
        if admitted:
            return Batch(True, admitted)
        decoding = self._make_room_for_decode()
        return Batch(False, decoding) if decoding else None

    def remove(self, requests: Iterable[Request]) -> None:
        """Removes those of the requests that are here and frees their blocks."""
        leaving = set(requests)
        for request in leaving:
            self._blocks.free(request.block_table)
        self.running = [request for request in self.running if request not in leaving]
        if not leaving.isdisjoint(self.waiting):
            self.waiting = deque(request for request in self.waiting if request not in leaving)

    def clear(self) -> None:
        """Removes all requests; no block has an owner afterwards."""
        for request in self.running:
            request.block_table.clear()
        self.running = []
        self.waiting.clear()
        self._blocks.clear()

    def preempt(self, request: Request) -> None:
        """Takes the blocks of a running request and queues it first."""
        self._blocks.free(request.block_table)
        request.result.metrics.preemptions += 1
        self.running.remove(request)
        self.waiting.appendleft(request)

    def _admit(self) -> list[Request]:
        admitted: list[Request] = []
        places = self._max_num_seqs - sum(not request.is_paused for request in self.running)
        tokens = 0
        for request in list(itertools.islice((each for each in self.waiting if not each.is_paused), max(0, places))):
            if admitted and (
                tokens + len(request) > self._max_num_batched_tokens
                or request.wants_prompt_logprobs
                or admitted[0].wants_prompt_logprobs
            ):
                break
            # One position more than the prefill writes: a request that could not take its first decode step
            # would be preempted at once.
            if not self._grow(request, min(len(request) + 1, request.max_total)):
                if not self.running:
                    raise EngineError(
                        f"A request of {len(request)} tokens does not fit into the {self._blocks.num_blocks} blocks of "
                        "the key/value cache"
                    )
                break
            self.waiting.remove(request)
            self.running.append(request)
            admitted.append(request)
            tokens += len(request)
        return admitted

    def _make_room_for_decode(self) -> list[Request]:
        """Gives each running request a slot for its newest token, oldest first, and returns those that got one."""
        decoding: list[Request] = []
        for request in sorted(self.running, key=_age):
            # A request without blocks was preempted just now.
            if request.is_paused or not request.block_table or len(decoding) == self._max_num_seqs:
                continue
            while not self._grow(request, len(request)):
                youngest = max(self.running, key=_age)
                self.preempt(youngest)
                if youngest is request:
                    break
            else:
                decoding.append(request)
        return decoding

    def _grow(self, request: Request, num_tokens: int) -> bool:
        """Gives a request the blocks for its first tokens, if need be those of requests that nobody reads."""
        while not self._blocks.grow(request.block_table, num_tokens):
            unread = [each for each in self.running if each.is_paused]
            if not unread:
                return False
            self.preempt(max(unread, key=_age))
        return True
