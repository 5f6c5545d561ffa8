# SPDX-License-Identifier: Apache-2.0
"""Wraps every route: checks keys and hosts, writes a line of the log, answers errors."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import re
import time
import uuid
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atb_serve.errors import ApiError, api_error
from atb_serve.http import CLIENT_LEFT, ClientLeftError, error_response
from atb_serve.metrics import Metrics
from atb_serve.settings import Access

#: One line of JSON for each request.
LOG = logging.getLogger("atb_serve.requests")
_OPEN_PATHS = frozenset({"/health"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Gate:
    """Answers requests that may not pass, counts and logs all, and turns errors into answers.

    A request's facts for the log are collected in `request.state.facts`, its id is `request.state.request_id`.

    Args:
        app: The application.
        access: Who may pass.
        metrics: Counts answers.
        paths: The path of each handler, for log and counts: that of a request is anybody's.
    """

    def __init__(self, app: ASGIApp, access: Access, metrics: Metrics, paths: Mapping[Any, str]) -> None:
        self._app, self._access, self._metrics, self._paths = app, access, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        facts: dict[str, Any] = {}
        # Behind the start of an answer, who sends much need not go through what looks for it.
        scope.setdefault("state", {}).update(request_id=request_id, facts=facts, send=send)
        started, status = time.monotonic(), 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                answered = MutableHeaders(scope=message)
                answered["x-request-id"] = request_id
                # A client that waits to be told to go on has only declared its body, which will then not come.
                if status >= 400 and "expect" in headers:
                    answered["connection"] = "close"
            await send(message)

        try:
            check_access(self._access, scope["path"], headers)
            await self._app(scope, receive, noting)
        except ClientLeftError:
            status = CLIENT_LEFT
        except asyncio.CancelledError:
            # The server ends, and the time for running requests is over.
            facts["error"] = "ended"
            if not status:
                answer = ApiError("The server ends", status=503, code="ended", kind="server_error")
                await error_response(answer)(scope, receive, noting)
        except Exception as error:
            refusal = _answer_to(error, facts)
            if not status:
                await refusal(scope, receive, noting)
        finally:
            self._note(scope, facts, status or CLIENT_LEFT, time.monotonic() - started)

    def _note(self, scope: Scope, facts: dict[str, Any], status: int, seconds: float) -> None:
        path = self._paths.get(scope.get("endpoint"), "unknown")
        self._metrics.answered(path, status)
        if LOG.isEnabledFor(logging.INFO):
            line = {
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "request_id": scope["state"]["request_id"],
                "client": (scope.get("client") or ("",))[0],
                "method": scope["method"],
                "path": path,
                "status": status,
                "seconds": round(seconds, 4),
                **facts,
            }
            LOG.info(json.dumps(line))


def _answer_to(error: Exception, facts: dict[str, Any]) -> Response:
    """Returns the answer to an error.

    No frame of the error's traceback has a name for it: with such a cycle, what the request had would stay in memory
    until the garbage collector comes.
    """
    answer = api_error(error)
    facts["error"] = answer.code or answer.kind
    return error_response(answer)


def check_access(access: Access, path: str, headers: Headers) -> None:
    """Raises ApiError for a request under a wrong host, or without a key where one is needed."""
    if not access.allows_host(headers.get("host", "")):
        raise ApiError(
            "The header Host names no host of this server", status=421, code="wrong_host",
            hint="`--allowed-host NAME` adds one.",
        )  # fmt: skip
    if not access.key_hashes or path in _OPEN_PATHS:
        return
    if not access.allows_key(_key(headers.get("authorization", ""))):
        # A browser that opens the page asks for the key; programs are told nothing but the error.
        ask = {"WWW-Authenticate": 'Basic realm="atb serve", charset="UTF-8"'} if path == "/" else {}
        raise ApiError(
            "The API key is missing or wrong", status=401, code="invalid_api_key", headers=ask,
            hint="Send it as `Authorization: Bearer KEY`.",
        )  # fmt: skip


def _key(authorization: str) -> str:
    """Returns the key in the header: a bearer token, or the password of a browser."""
    kind, _, value = authorization.partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    if kind.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode("utf-8").partition(":")[2]
        except (binascii.Error, ValueError):
            return ""
    return ""
