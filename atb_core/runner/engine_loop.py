# SPDX-License-Identifier: Apache-2.0
"""The loop that turns the requests of all callers into tokens: schedule, run the model, sample, append.

A loop has no thread of its own. Of the threads that wait for something, one at a time runs steps for all of them: a
program with one thread runs everything in it, so that an interrupt reaches the kernels too, and a runner that nobody
waits for costs nothing.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Generator
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from atb_core.errors import EngineError
from atb_core.features.step import KVCache, Step
from atb_core.graph.arrays import Array
from atb_core.plugin_errors import plugin_errors
from atb_core.runner.outputs import Logprob, StreamChunk
from atb_core.runner.pace import Pace
from atb_core.runner.request import Call, Request, Signal
from atb_core.runner.sampler import SampledToken, as_float32, prompt_logprobs, sample
from atb_core.runner.scheduler import Batch, Scheduler
from atb_core.runner.step_inputs import StepInputs

if TYPE_CHECKING:
    from atb_core.engine.base import SlicedRun

# Bound on the logits of a prompt that are held at a time for their log probabilities.
_LOGITS_BYTES = 1 << 28
# How often a waiting thread looks whether nobody runs steps: whoever did is meant to wake another one, but an interrupt
# can keep it from doing so.
_LOOK_AGAIN_SECONDS = 1.0


class Waiter(Protocol):
    """A thread that waits for the loop: `awake` is set when it has to look at `is_ready` again."""

    awake: Signal

    @property
    def is_ready(self) -> bool:
        """True if it has what it waits for."""


class EngineLoop:
    """Runs the requests of all calls together; calls may come, and be left, in any thread at any time.

    `forward` runs the model on a step and returns logits [rows, vocab]; `start` begins one in slices, whose output
    `model_out` they are.

    Attributes:
        lock: Held while the model runs and its logits are read, by all that share `forward`.
        calls: The calls that are not over and that nobody has left.
        num_steps: Number of steps that succeeded.
        scheduler: Its requests. Only the thread that runs steps may change it.
        pace: Measures how many prompt tokens and guesses a step may have.
    """

    def __init__(
        self,
        forward: Callable[[Step], Array],
        scheduler: Scheduler,
        kv_cache: KVCache,
        *,
        max_model_len: int,
        vocab_size: int,
        start: Callable[[Step], SlicedRun] | None = None,
    ) -> None:
        self._forward, self._start = forward, start
        self._sliced: _Sliced | None = None
        self._vocab_size = vocab_size
        self.scheduler, blocks = scheduler, scheduler.blocks
        self._inputs = StepInputs(scheduler.max_num_seqs, blocks.blocks_for(max_model_len), blocks.block_size, kv_cache)
        self.pace = Pace()
        self.calls: set[Call] = set()
        self.num_steps = 0
        self._make_locks()

    def _make_locks(self) -> None:
        self.lock = threading.RLock()
        # Who has the turn runs steps.
        self._turn = threading.RLock()
        self._in_step = False
        self._closing: Exception | None = None
        self._waiters: dict[Waiter, None] = {}
        # Calls that are new or were left, for whoever has the turn: callers need not wait for the end of a step.
        self._inbox: deque[Call] = deque()
        self._process = os.getpid()

    @property
    def num_running(self) -> int:
        """Number of requests that have cache blocks."""
        return len(self.scheduler.running)

    @property
    def num_waiting(self) -> int:
        """Number of requests that have none yet, or none any more."""
        new = sum(call.num_unfinished for call in tuple(self._inbox) if not call.left)
        return len(self.scheduler.waiting) + new

    def submit(self, call: Call) -> None:
        """Lets the requests of a call take part from the next step on; once, however often it is called."""
        self._check_process()
        if not call.is_submitted:
            call.is_submitted = True
            self.calls.add(call)
            self._inbox.append(call)

    def leave(self, call: Call) -> None:
        """Ends a call: its requests take part in no further step. May be called again, and from a finalizer.

        Their blocks are free on return, or after the current step if another thread runs one.
        """
        self._check_process()
        call.left = True
        if call in self.calls:
            self._inbox.append(call)
            self._settle()

    def chunks(self, call: Call) -> Generator[StreamChunk, None, None]:
        """Submits a call and yields what comes for it until it is over, running steps as needed; then leaves it.

        Raises:
            Exception: What ended the call early.
        """
        try:
            self.submit(call)
            is_over = False
            while not is_over:
                self.run_until_ready(call)
                is_over = call.is_over
                while call.chunks:
                    yield call.chunks.popleft()
        finally:
            self.leave(call)
        if call.error is not None:
            raise call.error

    def run_until_ready(self, waiter: Waiter) -> None:
        """Returns once a waiter is ready; runs steps for all calls meanwhile, unless another thread does."""
        self._check_process()
        try:
            while not waiter.is_ready:
                # Before the attempt: who gives the turn back afterwards sees this waiter.
                self._waiters[waiter] = None
                if not self._run_steps(waiter):
                    waiter.awake.wait(_LOOK_AGAIN_SECONDS)
        finally:
            self._waiters.pop(waiter, None)
            self._settle()

    def close(self, error: Exception) -> None:
        """Ends all calls with an error, after the current step."""
        self._check_process()
        self._closing = error
        try:
            with self._turn:
                self._end_calls(error)
        finally:
            self._closing = None

    def _run_steps(self, waiter: Waiter) -> bool:
        """Runs steps until a waiter is ready; returns False if another thread does, or no request can run now."""
        try:
            if not self._turn.acquire(blocking=False):
                return False
            if self._in_step:
                raise EngineError("A signal handler or a finalizer asked for tokens in the middle of a step")
            while not waiter.is_ready:
                if not self._step():
                    return False
            return True
        finally:
            # An interrupt is looked at after calls, so none comes between here and the release. It fails if the turn
            # was not given, or the interrupt came before.
            try:  # noqa: SIM105
                self._turn.release()
            except RuntimeError:
                pass

    def _settle(self) -> None:
        """Looks after what came up while another thread had the turn, and lets a waiting thread have it next."""
        while self._inbox:
            try:
                # Who has the turn comes here after giving it back.
                if not self._turn.acquire(blocking=False) or self._in_step:
                    break
                self._take_inbox()
            finally:
                try:  # noqa: SIM105
                    self._turn.release()
                except RuntimeError:
                    pass
        for waiter in tuple(self._waiters)[:1]:
            waiter.awake.set()

    def _take_inbox(self) -> None:
        while self._inbox:
            call = self._inbox.popleft()
            if call not in self.calls:
                continue
            if call.left:
                self._end_call(call, None)
            else:
                self.scheduler.add(call.requests)

    def _step(self) -> bool:
        """Runs the model once; returns False if no request can run.

        An exception of the model ends the calls of the requests that took part. An interrupt of the model changes
        nothing: its requests come again. One in the bookkeeping ends all calls.
        """
        self._in_step, self._is_consistent = True, False
        try:
            if self._closing is not None:
                self._end_calls(self._closing)
            self._take_inbox()
            scheduler, pace = self.scheduler, self.pace
            scheduler.chunk_size, scheduler.sliced_size = pace.chunk_size, pace.sliced_size
            scheduler.draft_cost = pace.draft_cost
            batch = scheduler.next_batch()
            if batch is not None:
                self._compute(batch, self._run)
            if (sliced := scheduler.sliced) is not None:
                seconds = pace.slice_seconds(batch)
                self._compute(sliced, lambda chunk, sampled: self._run_slice(chunk, sampled, seconds))
            else:
                self._sliced = None
            return batch is not None or sliced is not None
        except Exception as error:
            self._end_calls(error)
            return True
        except BaseException:
            if not self._is_consistent:
                message = "The thread that ran the steps of all requests was interrupted"
                self._end_calls(EngineError(message, hint="Send the request again."))
            raise
        finally:
            self._in_step = False

    def _compute(self, batch: Batch, run: Callable[[Batch, list[Request]], _Results | None]) -> None:
        """Runs the model on a batch by `run`, and gives requests their tokens unless that returns `None`."""
        pairs = zip(batch.requests, batch.counts, strict=True)
        sampled = [each for each, count in pairs if each.will_add_token_after(count)]
        try:
            results = run(batch, sampled)
        except Exception as error:
            calls = {request.call for request in batch.requests}
            for call in calls:
                self._end_call(call, error)
            return _notify(calls)
        except BaseException:
            self._is_consistent = True
            # It may have ended, with results that are lost; a chunk that begins again writes the same.
            self._sliced = None
            raise
        if results is not None:
            self.scheduler.mark_computed(batch.requests, batch.counts)
            self._hand_out(sampled, results[0])
            self._check(results[1])

    def _run_slice(self, batch: Batch, sampled: list[Request], seconds: float) -> _Results | None:
        """Goes on with a chunk for about so long; returns as `_run` once it is computed, `None` before."""
        assert self._start is not None
        start = time.perf_counter()
        with self.lock, plugin_errors():
            if self._sliced is None or self._sliced.batch is not batch:
                batch.requests[0].mark_started()
                self._sliced = _Sliced(batch, self._start(self._inputs.packed(batch)))
            outputs = self._sliced.run.advance(seconds - (time.perf_counter() - start))
            self._sliced.seconds += time.perf_counter() - start
            if outputs is None:
                return None
            results = sample(as_float32(outputs["model_out"]), sampled)
        self.num_steps += 1
        self.pace.note_sliced(batch, self._sliced.seconds)
        self._sliced = self.scheduler.sliced = None
        return results, []

    def _run(self, batch: Batch, sampled: list[Request]) -> _Results:
        """Returns the next token of each request in `sampled`, or why it has none, and the drafts to check."""
        requests, start = batch.requests, time.perf_counter()
        drafted: list[_Drafted] = []
        with self.lock, plugin_errors():
            if batch.phase == "decode":
                logits = self._forward(self._inputs.decode(requests))
            else:
                for request in requests:
                    request.mark_started()
                step = self._inputs.packed(batch)
                # The scheduler runs a request that wants those of its prompt alone.
                alone = requests[0].wants_prompt_logprobs
                logits = self._prefill_with_logprobs(requests[0], step) if alone else self._forward(step)
            rows = as_float32(logits)
            if batch.drafts:
                rows, drafted = _split(rows, batch)
            results = sample(rows, sampled)
        self.num_steps += 1
        self.pace.note(batch, time.perf_counter() - start)
        return results, drafted

    def _check(self, drafted: list[_Drafted]) -> None:
        """Samples after the guesses that were right, and gives requests these tokens too."""
        place, right = 0, drafted
        while right:
            place += 1
            right = [each for each in right if each.is_right(place)]
            requests = [each.request for each in right]
            # The cache has a guess that was right; what it has of others is written again.
            self.scheduler.mark_computed(requests, [1] * len(requests))
            self._hand_out(requests, sample([each.rows[place] for each in right], requests))
        for each in drafted:
            each.request.note_draft(len(each.tokens), each.num_right)

    def _prefill_with_logprobs(self, request: Request, step: Step) -> Array:
        """Runs one prompt once for each part of its logits, keeps its log probabilities, and returns the last logits.

        Each run writes the same to the cache; only the logits that it is asked for differ.
        """
        prompt, count = request.result.prompt_token_ids, request.params.prompt_logprobs
        assert count is not None
        entries: list[dict[int, Logprob] | None] = [None]
        while True:
            start = len(entries) - 1
            end = min(len(prompt), start + max(1, _LOGITS_BYTES // (4 * self._vocab_size)))
            logits = self._forward(dataclasses.replace(step, lm_head_indices=np.arange(start, end)))
            followed = prompt[start + 1 : end + 1]
            part = prompt_logprobs(logits[: len(followed)], followed, count)
            entries += [request.with_text(logprobs) for logprobs in part]
            if end == len(prompt):
                break
        request.result.prompt_logprobs = entries
        request.wants_prompt_logprobs = False
        return logits[-1:]

    def _hand_out(self, requests: list[Request], results: list[SampledToken | Exception]) -> None:
        """Appends tokens to requests and gives the chunks to their callers."""
        for request, result in zip(requests, results, strict=True):
            if request.completion.finish_reason is not None:
                continue  # an earlier request ended the call
            if isinstance(result, SampledToken):
                try:
                    request.call.put(_chunk_of(request, result))
                    continue
                except Exception as error:
                    result = error
            self._end_call(request.call, result)
        calls = {request.call for request in requests}
        if finished := [request for request in requests if request.completion.finish_reason is not None]:
            self.scheduler.remove(finished)
            for call in calls:
                if call.is_over:
                    self._end_call(call, None)
        _notify(calls)

    def _end_call(self, call: Call, error: Exception | None) -> None:
        self.scheduler.remove(call.requests)
        call.end(error)
        self.calls.discard(call)

    def _end_calls(self, error: Exception) -> None:
        """Ends all calls; whatever was interrupted, no block has an owner afterwards."""
        self.scheduler.clear()
        self._sliced = None
        self._inbox.clear()
        calls = tuple(self.calls)
        for call in calls:
            call.end(error)
        _notify(calls)
        self.calls.clear()

    def _check_process(self) -> None:
        """Starts again in a forked child: the threads that waited, or ran a step, are the parent's."""
        if self._process != os.getpid():
            self._make_locks()
            self._end_calls(EngineError("The process was forked while the request ran", hint="Send it again."))


@dataclasses.dataclass
class _Sliced:
    """The run of a chunk in slices, and how long they took."""

    batch: Batch
    run: SlicedRun
    seconds: float = 0.0


@dataclasses.dataclass
class _Drafted:
    """A request with guesses, and the logits [1 + guesses, vocab] after its newest token and after each of them."""

    request: Request
    tokens: list[int]
    rows: npt.NDArray[np.float32]
    num_right: int = 0

    def is_right(self, place: int) -> bool:
        """Returns True if the newest token is the guess number `place`, from 1, and the request goes on."""
        if place > len(self.tokens) or self.tokens[place - 1] != self.request.token_ids[-1]:
            return False
        self.num_right = place
        return self.request.completion.finish_reason is None


_Results: TypeAlias = tuple[list[SampledToken | Exception], list[_Drafted]]


def _split(rows: npt.NDArray[np.float32], batch: Batch) -> tuple[npt.NDArray[np.float32], list[_Drafted]]:
    """Returns the rows after the newest tokens, and a copy of those of drafts, to be read after the step."""
    firsts, drafted, row = [], [], 0
    for request in batch.requests:
        draft = batch.drafts.get(request, [])
        firsts.append(row)
        if draft:
            drafted.append(_Drafted(request, draft, rows[row : row + 1 + len(draft)].copy()))
        row += 1 + len(draft)
    return rows[firsts], drafted


def _notify(calls: Collection[Call]) -> None:
    """Tells callers what a step has for them; those that share the function for it, by one call."""
    for notify in {call.notify for call in calls}:
        notify()


def _chunk_of(request: Request, token: SampledToken) -> StreamChunk:
    logprobs = None if token.logprobs is None else request.with_text(token.logprobs)
    text = request.append(token.token_id, logprobs)
    reason, number = request.completion.finish_reason, request.completion.index
    output = request.result if request.result.finished else None
    return StreamChunk(request.prompt_index, number, text, token.token_id, reason, logprobs, output)
