# SPDX-License-Identifier: Apache-2.0
"""The application that Ray Serve's proxies ask: it checks requests and sends each to a replica."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from atb_serve.access import check_access
from atb_serve.errors import ApiError, api_error
from atb_serve.http import ClientLeftError, error_response, read_bytes, until_client_leaves
from atb_serve.ray.calls import HttpCall
from atb_serve.ray.prefixes import prefix_keys
from atb_serve.replies import event
from atb_serve.settings import ServeSettings
from atb_serve.turnover import Turnover

_LOG = logging.getLogger("atb_serve")
# Each of them is about one server, and a request reaches one of several.
_NOT_HERE = {
    "/metrics": "Ray has the metrics of the deployments.",
    "/v1/load_lora_adapter": "Name adapters where the replicas are started, with lora.",
    "/v1/unload_lora_adapter": "Name adapters where the replicas are started, with lora.",
}


class Ingress:
    """Sends requests to replicas and their answers back.

    Args:
        replicas: Ray's handle of the replicas, for generators.
        settings: Limits and access.
    """

    def __init__(self, replicas: Any, settings: ServeSettings) -> None:
        self._replicas, self._settings = replicas, settings
        # Of the requests that replicas answer.
        self._turnover = Turnover()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = _Sender(send)
        try:
            call = await self._call(Request(scope, receive))
            await until_client_leaves(receive, self._forward(call, answer))
        except ClientLeftError:
            pass
        except Exception as error:
            if not answer.has_begun:
                await error_response(self._problem_of(error))(scope, receive, send)
            elif answer.is_stream:
                body = event(self._problem_of(error).body())
                await send({"type": "http.response.body", "body": body, "more_body": False})
            else:
                raise

    async def _call(self, request: Request) -> HttpCall:
        """Checks what a replica need not be asked for, and reads the body."""
        scope = request.scope
        check_access(self._settings.access, scope["path"], Headers(scope=scope))
        path = scope["path"][len(scope.get("root_path", "")) :] or "/"
        if path in _NOT_HERE:
            raise ApiError(
                f"{path} is about one server, and here are several", status=404, code="not_found", hint=_NOT_HERE[path]
            )
        body = await read_bytes(request, self._settings.limits)
        names = ("method", "scheme", "query_string", "headers", "client", "server")
        sent = {name: scope[name] for name in names if name in scope}
        return HttpCall({**sent, "path": path, "raw_path": path.encode()}, body, prefix_keys(body))

    async def _forward(self, call: HttpCall, answer: _Sender) -> None:
        messages = self._replicas.respond.remote(call)
        is_answered = False
        try:
            async for several in messages:
                if not is_answered:
                    self._turnover.begin()
                    is_answered = True
                for message in several:
                    await answer.send(message)
        except asyncio.CancelledError:
            messages.cancel()
            raise
        finally:
            if is_answered:
                self._turnover.end()

    def _problem_of(self, error: Exception) -> ApiError:
        """Returns the answer to an error of Ray or of the request."""
        from ray.exceptions import RayActorError, RayTaskError
        from ray.serve.exceptions import BackPressureError, RayServeException

        if isinstance(error, BackPressureError):
            return api_error(self._turnover.full(self._settings.limits.max_queue_len, "requests"))
        if isinstance(error, (RayActorError, RayServeException)) and not isinstance(error, RayTaskError):
            _LOG.error("a replica was lost: %s", error)
            return ApiError(
                "The replica that computed the answer was lost", status=503, code="replica_lost", kind="server_error",
                hint="Send the request again.", headers={"Retry-After": "1"},
            )  # fmt: skip
        return api_error(error)


class _Sender:
    """Sends an answer and notes how far it is."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_begun = self.is_stream = False

    async def send(self, message: Message) -> None:
        """Sends one message."""
        if message["type"] == "http.response.start":
            self.has_begun = True
            headers = Headers(raw=list(message["headers"]))
            self.is_stream = headers.get("content-type", "").startswith("text/event-stream")
        await self._send(message)


async def _live(receive: Receive, send: Send) -> None:
    """Answers the messages about the start and the end of the application."""
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
