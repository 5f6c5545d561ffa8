# SPDX-License-Identifier: Apache-2.0
"""Generates for the tasks of an event loop."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any

from atb_core.errors import RequestError, RequestTimeoutError
from atb_core.runner.arguments import check_sizes
from atb_core.runner.outputs import RequestOutput, StreamChunk
from atb_core.runner.prompts import Chat, Prompt, split_chats, split_prompts
from atb_core.runner.request import Call, Request, Signal
from atb_core.runner.sampling_params import SamplingParams
from atb_core.runner.token_mask import TokenMaskFactory
from atb_serve.turnover import Turnover
from atb_serve.waiting import within

if TYPE_CHECKING:
    from atb_core import ModelRunner
    from atb_core.runner.engine_loop import EngineLoop

# Rendering of chat templates takes turns in one process; a second thread encodes meanwhile.
_ENCODING_THREADS = 2
_HEALTH_POLL_SECONDS = 0.01
# Longest time for which steps wait for the event loop, which may be busy with something else, and the first step for
# further requests that arrive.
_PATIENCE = 0.01
# Turns of the event loop in which a connection that waits becomes a request that is prepared.
_TURNS = 4

OnEnd = Callable[[RequestOutput, int], object]


class AsyncRunner:
    """Serves requests of many tasks with one `ModelRunner`: they come and go at any step and share batches.

    Steps run in a thread that lives as long as a request can run, prompts are encoded in threads too, so the event loop
    is never blocked. Threads may call `generate` and `chat` of the same `ModelRunner` meanwhile.

    Args:
        runner: The model; it stays its owner's, who closes it after this.
        max_queue_len: Largest number of requests that wait for their first step; more are refused.

    Attributes:
        runner: The `ModelRunner`.
    """

    def __init__(self, runner: ModelRunner, *, max_queue_len: int = 256) -> None:
        check_sizes(max_queue_len=max_queue_len)
        self.runner = runner
        self._max_queue_len = max_queue_len
        self._engine = runner.engine_loop
        self._streams: dict[str, _Stream] = {}
        self._driver = _Driver(self._engine, self._streams)
        self._turnover = Turnover()
        self._wakeups: _Wakeups | None = None
        # Requests on their way to the engine, and those of them that are counted as waiting.
        self._num_arriving = self._num_encoding = 0
        self._encoding = ThreadPoolExecutor(_ENCODING_THREADS, thread_name_prefix="atb-encode")
        self._is_closed = False

    @property
    def num_running(self) -> int:
        """Number of requests that have cache blocks."""
        return self._engine.num_running

    @property
    def num_waiting(self) -> int:
        """Number of requests that wait for their first step, or for blocks that were taken from them."""
        return self._engine.num_waiting + self._num_encoding

    def generate(
        self,
        prompt: Prompt,
        sampling_params: SamplingParams | None = None,
        request_id: str | None = None,
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[dict[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        token_mask: TokenMaskFactory | None = None,
        adapter_id: str | None = None,
        on_end: OnEnd = lambda output, generated: None,
    ) -> AsyncGenerator[StreamChunk, None]:
        """Continues one prompt.

        Leaving the generator or cancelling its task ends the request and frees its cache blocks.

        Args:
            prompt: Text, a list of token ids, a chat, `{"prompt": text}` or `{"prompt_token_ids": ids}`.
            sampling_params: `None`: the runner's `get_default_sampling_params()`.
            request_id: Name for `abort`, and in the output; a number by default.
            add_generation_prompt: As for `ModelRunner.generate`.
            tools: As for `ModelRunner.generate`.
            chat_template_kwargs: As for `ModelRunner.generate`.
            timeout: Seconds within which the request has to be finished.
            token_mask: As for `ModelRunner.generate`.
            adapter_id: Name of an adapter; `None`: the model without one.
            on_end: Is called when the request ends, at its last token or early, with its output and the number of
                tokens that it has got.

        Yields:
            The chunks of all `n` completions; the last one has the `output`.

        Raises:
            QueueFullError: Too many requests wait.
            RequestTimeoutError: The request is not finished in time.
            RequestError: The prompt or a parameter cannot be served, or the runner was closed.
            EngineError: A step failed.
        """
        options = ((add_generation_prompt, tools, chat_template_kwargs), token_mask, adapter_id)
        return self._run(split_prompts(prompt), sampling_params, request_id, timeout, options, on_end)

    def chat(
        self,
        messages: Chat,
        sampling_params: SamplingParams | None = None,
        request_id: str | None = None,
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[dict[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        token_mask: TokenMaskFactory | None = None,
        adapter_id: str | None = None,
        on_end: OnEnd = lambda output, generated: None,
    ) -> AsyncGenerator[StreamChunk, None]:
        """Answers one chat, a list of dicts with `role` and `content`; all else is as for `generate`."""
        options = ((add_generation_prompt, tools, chat_template_kwargs), token_mask, adapter_id)
        return self._run(split_chats(messages), sampling_params, request_id, timeout, options, on_end)

    async def abort(self, request_id: str) -> None:
        """Ends a request: its generator ends after the chunks so far. An unknown name is one that has ended already."""
        stream = self._streams.get(request_id)
        if stream is not None:
            self._leave(stream, None)

    async def check_health(self) -> None:
        """Returns once the engine has run a step: one of the requests that run, or of a request of one token.

        Raises:
            AtbError: It cannot.
        """
        before = self._engine.num_steps
        while self._engine.num_running and not self._driver.is_ready:
            if self._engine.num_steps > before:
                return
            await asyncio.sleep(_HEALTH_POLL_SECONDS)
        one_token = SamplingParams(max_tokens=1, ignore_eos=True)
        request = self._run([[0]], one_token, None, None, ((), None), may_be_refused=False)
        async with aclosing(request) as chunks:
            async for _ in chunks:
                pass

    async def close(self, *, drain: float | None = None) -> None:
        """Refuses new requests and ends those that run.

        Args:
            drain: Seconds that they may still go on; by default none.
        """
        self._is_closed = True
        deadline = time.monotonic() + (drain or 0.0)
        while self._streams and time.monotonic() < deadline:
            await asyncio.sleep(_HEALTH_POLL_SECONDS)
        for stream in tuple(self._streams.values()):
            self._leave(stream, _closed())
        thread = self._driver.thread
        if thread is not None:
            await asyncio.to_thread(thread.join)
        self._encoding.shutdown(wait=False, cancel_futures=True)

    async def _run(
        self,
        prompts: list[Any],
        sampling_params: SamplingParams | None,
        request_id: str | None,
        timeout: float | None,
        options: tuple[Any, ...],
        on_end: OnEnd = lambda output, generated: None,
        may_be_refused: bool = True,
    ) -> AsyncGenerator[StreamChunk, None]:
        _check_arguments(prompts, request_id)
        self._check_open()
        if may_be_refused and self.num_waiting >= self._max_queue_len:
            raise self._turnover.full(self.num_waiting, "requests")
        deadline = None if timeout is None else time.monotonic() + _checked_timeout(timeout)
        encode = asyncio.get_running_loop().run_in_executor
        arguments = (prompts, sampling_params, request_id, *options)
        # They count as waiting meanwhile.
        self._num_encoding += 1
        try:
            with self.arriving():
                requests = await within(timeout, encode(self._encoding, self.runner._make_requests, *arguments))
        except asyncio.TimeoutError:
            raise _late() from None
        finally:
            self._num_encoding -= 1
        self._check_open()
        request_id = requests[0].result.request_id
        if request_id in self._streams:
            raise RequestError(f"A request with the id {request_id!r} runs already")
        stream = _Stream(self, requests)
        result: RequestOutput | None = requests[0].result
        taken = 0
        # Nor an error may have them, by its traceback, for longer than they run.
        del requests
        self._engine.submit(stream.call)
        self._streams[request_id] = stream
        self._turnover.begin()
        timer = None if deadline is None else stream.expire_at(deadline)
        try:
            self._start()
            while not stream.is_over:
                await stream.wait()
                while stream.call.chunks:
                    taken += 1
                    if stream.call.chunks[0].output is not None and result is not None:
                        on_end(result, taken)
                        result = None
                    yield stream.take()
            if stream.error is not None:
                raise stream.error
        finally:
            if timer is not None:
                timer.cancel()
            del self._streams[request_id]
            self._turnover.end()
            if result is not None:
                on_end(result, taken + len(stream.call.chunks))
            stream.leave()
            del stream, result

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """Lets an engine that has nothing to do wait a little for a request that is being prepared meanwhile.

        Requests that come at the same time begin together: one that began alone would make them join it in chunks.
        """
        self._num_arriving += 1
        try:
            yield
        finally:
            self._num_arriving -= 1
            if not self._num_arriving and self._streams:
                # Behind the task, which may go on to the next part of the preparation.
                asyncio.get_running_loop().call_soon(self._start)

    def _start(self, turns: int = _TURNS) -> None:
        """Starts steps; if none runs, only once no further request arrives."""
        if self._driver.is_running or not (self._num_arriving or turns):
            self._driver.start()
        elif self._num_arriving:
            asyncio.get_running_loop().call_later(_PATIENCE, self._driver.start)
        else:
            asyncio.get_running_loop().call_soon(self._start, turns - 1)

    def _wakeups_of_loop(self) -> _Wakeups:
        loop = asyncio.get_running_loop()
        if self._wakeups is None or self._wakeups.loop is not loop:
            self._wakeups = _Wakeups(loop, _has_all_processors(self.runner))
        return self._wakeups

    def _check_open(self) -> None:
        if self._is_closed:
            raise _closed()

    def _leave(self, stream: _Stream, error: Exception | None) -> None:
        """Ends a request; its generator raises the error, or ends, after the chunks so far."""
        stream.leave()
        stream.end(error)


class _Driver:
    """Runs steps in a thread as long as a request of a stream can run."""

    def __init__(self, engine: EngineLoop, streams: Mapping[str, _Stream]) -> None:
        self.awake = Signal()
        self.thread: threading.Thread | None = None
        self._engine = engine
        self._streams = streams
        self._lock = threading.Lock()

    @property
    def is_ready(self) -> bool:
        """True if there is nothing to do."""
        return not any(stream.call.can_run for stream in tuple(self._streams.values()))

    @property
    def is_running(self) -> bool:
        """True if the thread runs."""
        thread = self.thread  # which ends, and says so, at any time
        return thread is not None and thread.is_alive()

    def start(self) -> None:
        """Starts the thread, or wakes it, if there is something to do."""
        if self.is_ready:
            return
        with self._lock:
            if not self.is_running:
                self.thread = threading.Thread(target=self._run, name="atb-engine")
                self.thread.start()
        self.awake.set()

    def _run(self) -> None:
        while True:
            self._engine.run_until_ready(self)
            with self._lock:
                if self.is_ready:
                    self.thread = None
                    return


class _Wakeups:
    """Wakes the tasks of one event loop: all that a step has something for by one call, which takes a system call.

    Args:
        loop: The event loop of this thread.
        waits: Keeps the thread that runs steps until the tasks have gone on. Beside an engine that has all processors,
            they would stop one of its threads in turns, for which the others then wait, and find the caches emptied.

    Attributes:
        loop: The event loop.
        streams: Those of its tasks.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, waits: bool) -> None:
        self.loop = loop
        self.streams: set[_Stream] = set()
        self._is_called = False
        self._patience, self._thread = _PATIENCE if waits else 0.0, threading.get_ident()
        self._done = Signal()

    def wake(self) -> None:
        """Wakes the tasks whose streams have something, from any thread."""
        # Before it looks at the streams, the event loop takes the mark back: a step that ends later calls again.
        if self._is_called:
            return
        self._is_called = True
        self._done.clear()
        try:
            self.loop.call_soon_threadsafe(self._wake)
        except RuntimeError:  # the event loop was closed, its tasks are gone
            self._is_called = False
            for stream in tuple(self.streams):
                stream.leave()
            return
        if self._patience and threading.get_ident() != self._thread:
            self._done.wait(self._patience)

    def _wake(self) -> None:
        self._is_called = False
        for stream in self.streams:
            if stream.call.is_ready:
                stream.wake()
        # Behind the tasks, which are called in the order in which they were woken.
        self.loop.call_soon(self._done.set)


class _Stream:
    """The chunks of one request on their way from the thread that runs steps to a task."""

    def __init__(self, owner: AsyncRunner, requests: list[Request]) -> None:
        self._owner = owner
        self._wakeups = owner._wakeups_of_loop()
        # A future that the task waits for. An `asyncio.Event` asks for the event loop, which takes a system call.
        self._waiter: asyncio.Future[None] | None = None
        self._has_ended = False
        self._error: Exception | None = None
        self.call = Call(requests, streams=True, notify=self._wakeups.wake)
        self._wakeups.streams.add(self)

    @property
    def is_over(self) -> bool:
        """True if no chunk is left and none will come."""
        return not self.call.chunks and (self._has_ended or self.call.is_over)

    @property
    def error(self) -> BaseException | None:
        """The error that ended the request early."""
        return self._error or self.call.error

    async def wait(self) -> None:
        """Returns once something has changed."""
        if not self.call.is_ready and not self._has_ended:
            self._waiter = self._wakeups.loop.create_future()
            await self._waiter

    def wake(self) -> None:
        """Lets the task go on."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def take(self) -> StreamChunk:
        """Returns the oldest chunk; a request that waited for its reader goes on."""
        was_paused = not self.call.can_run
        chunk = self.call.chunks.popleft()
        if was_paused and self.call.can_run:
            self._owner._driver.start()
        return chunk

    def end(self, error: Exception | None) -> None:
        """Ends the stream from the event loop."""
        self._has_ended, self._error = True, self._error or error
        self.wake()

    def expire_at(self, deadline: float) -> asyncio.TimerHandle:
        """Ends the request with an error at a time of the monotonic clock."""
        return self._wakeups.loop.call_later(max(0.0, deadline - time.monotonic()), self._owner._leave, self, _late())

    def leave(self) -> None:
        """Ends the request, of which nobody is told any more."""
        self._wakeups.streams.discard(self)
        self._owner._engine.leave(self.call)


def _has_all_processors(runner: ModelRunner) -> bool:
    """Returns True if the engine of a runner has a thread for each processor of this process."""
    threads = getattr(runner.model.backend, "num_threads", None)
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return threads is not None and threads >= processors


def _check_arguments(prompts: list[Any], request_id: Any) -> None:
    """Raises RequestError unless there is one prompt, with a name that is a string, if it has one."""
    if len(prompts) != 1:
        raise RequestError(
            f"AsyncRunner takes one prompt at a time, not {len(prompts)}", hint="Start a task for each prompt."
        )
    if not isinstance(request_id, (str, type(None))):
        raise RequestError(f"request_id must be a string, not {request_id!r:.100}")


def _checked_timeout(seconds: Any) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0:
        raise RequestError(f"timeout must be a positive number of seconds, not {seconds!r:.100}")
    return seconds


def _late() -> RequestTimeoutError:
    return RequestTimeoutError("The request was not finished in the time that it was given")


def _closed() -> RequestError:
    return RequestError("This AsyncRunner was closed")
