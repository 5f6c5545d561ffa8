# SPDX-License-Identifier: Apache-2.0
"""Adds to starlette: bounded bodies, clients that leave, and streams that nobody reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, Protocol, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from atb_serve.errors import ApiError, invalid_json
from atb_serve.replies import encode_json
from atb_serve.settings import Limits
from atb_serve.waiting import within

T = TypeVar("T")
#: Status of a request whose client left, in the log; nothing is sent. nginx has it too.
CLIENT_LEFT = 499


class ClientLeftError(Exception):
    """Error for a client that closed the connection."""


class JsonResponse(Response):
    """A body in JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Returns the body's bytes."""
        return encode_json(content)


def error_response(error: ApiError) -> JsonResponse:
    """Returns the answer to a request that is refused."""
    return JsonResponse(error.body(), error.status, error.headers)


async def read_body(request: Request, kind: type[T], limits: Limits) -> T:
    """Reads a body and checks it against its schema.

    Raises:
        ApiError: It is too large or too slow, compressed, no JSON, or not of the form that `kind` describes.
        ClientLeftError: The client left meanwhile.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError("The header Content-Type must be application/json", status=415, code="unsupported_media_type")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise ApiError("A body with the header Content-Encoding is not read: send it as it is", status=415,
                       code="unsupported_media_type")  # fmt: skip
    data = await read_bytes(request, limits)
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise invalid_json(error) from None


async def read_bytes(request: Request, limits: Limits) -> bytes:
    """Reads a body.

    Raises:
        ApiError: It is too large or too slow.
        ClientLeftError: The client left meanwhile.
    """
    try:
        return await within(limits.body_timeout, _body(request, limits.max_body_bytes))
    except asyncio.TimeoutError:
        raise ApiError(
            f"The body did not arrive within {limits.body_timeout:g} s", status=408, code="body_timeout"
        ) from None


async def _body(request: Request, limit: int) -> bytes:
    declared = request.headers.get("content-length", "")
    _check_size(int(declared) if declared.isdecimal() and len(declared) < 20 else 0, limit)
    data = bytearray()
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientLeftError
        data += message.get("body", b"")
        _check_size(len(data), limit)
        if not message.get("more_body", False):
            return bytes(data)


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise ApiError(
            f"The body is larger than {limit} bytes, which this server allows", status=413, code="body_too_large"
        )


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def until_client_leaves(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Returns the result of `work`, which is cancelled if the client leaves.

    Raises:
        ClientLeftError: The client left first.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientLeftError
        return task.result()
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)
        # The task has its error, whose traceback has this frame.
        del task, each


class EventStream(Response):
    """Server-sent events. A client that leaves, or that does not read for `idle_timeout` seconds, ends them.

    Args:
        first: The first event.
        events: The events after it.
        idle_timeout: Seconds for which one event may wait to be read.
    """

    media_type = "text/event-stream"

    def __init__(self, first: bytes, events: AsyncGenerator[bytes, None], idle_timeout: float) -> None:
        self.first, self.events, self.idle_timeout = first, events, idle_timeout
        self.status_code, self.background = 200, None
        # Proxies must not collect events.
        self.init_headers({"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the events."""
        try:
            await until_client_leaves(receive, self._send_all(send, scope["state"]["send"]))
        finally:
            await self.events.aclose()

    async def _send_all(self, send: Send, send_body: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        patience, event = _Patience(self.idle_timeout), self.first
        try:
            while event:
                patience.begin()
                await send_body({"type": "http.response.body", "body": event, "more_body": True})
                patience.end()
                event = await anext(self.events, b"")
        except asyncio.CancelledError:
            if patience.is_over:
                raise ClientLeftError from None
            raise
        finally:
            patience.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Patience:
    """Cancels the current task if it waits for too long; one timer looks after many waits, as one is for each token."""

    def __init__(self, seconds: float) -> None:
        self._loop, self._task, self._seconds = asyncio.get_running_loop(), asyncio.current_task(), seconds
        self._since: float | None = None
        self.is_over = False
        self._timer = self._loop.call_later(seconds, self._look)

    def begin(self) -> None:
        """Notes that a wait begins."""
        self._since = self._loop.time()

    def end(self) -> None:
        """Notes that it is over."""
        self._since = None

    def cancel(self) -> None:
        """Ends the timer."""
        self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        since = now if self._since is None else self._since
        self.is_over = now - since >= self._seconds
        if self.is_over and self._task is not None:
            self._task.cancel()
        else:
            self._timer = self._loop.call_at(since + self._seconds, self._look)


class Work(Protocol):
    """Answers one request."""

    async def whole(self) -> Any:
        """Returns the complete answer."""

    def events(self) -> AsyncGenerator[bytes, None]:
        """Yields the parts of the answer in the form of server-sent events."""


async def reply(request: Request, work: Work, stream: bool, idle_timeout: float) -> Response:
    """Answers with the result of `work`, or with its events as they come; ends it when the client leaves."""
    if not stream:
        return JsonResponse(await until_client_leaves(request.receive, work.whole()))
    events = work.events()
    # The first event comes after all checks, so that an error has a status of its own.
    first = await until_client_leaves(request.receive, anext(events))
    return EventStream(first, events, idle_timeout)
