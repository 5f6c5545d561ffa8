# SPDX-License-Identifier: Apache-2.0
"""The ASGI application: what stands around its routes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from atb_core.errors import SettingsError
from atb_serve import status
from atb_serve.access import Gate
from atb_serve.engine import ServedModel
from atb_serve.errors import ApiError
from atb_serve.http import error_response
from atb_serve.metrics import Metrics
from atb_serve.openapi import description
from atb_serve.routes import ENDPOINTS
from atb_serve.settings import ServeSettings
from atb_serve.state import ServerState

if TYPE_CHECKING:
    from atb_core import ModelRunner


def make_app(runner: ModelRunner, names: Sequence[str], settings: ServeSettings) -> Starlette:
    """Makes the application for one model.

    When the application shuts down, it closes the model.

    Args:
        runner: The open model.
        names: The names under which requests may ask for it; answers have the first one.
        settings: Limits and access.
    """
    model = ServedModel(names[0], runner, settings.limits)
    metrics = Metrics([model])

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await model.close()

    app = Starlette(
        routes=[Route(each.path, each.handler, methods=[each.method]) for each in ENDPOINTS],
        middleware=[Middleware(Gate, settings.access, metrics, {each.handler: each.path for each in ENDPOINTS})],
        exception_handlers={HTTPException: _http_error},
        lifespan=lifespan,
    )
    # A path with a slash too many is an unknown one, and not sent elsewhere.
    app.router.redirect_slashes = False
    app.state.health = status.Health()
    app.state.description = cache(lambda: description(ENDPOINTS))
    models = dict.fromkeys(names, model)
    for name in runner.adapters:
        if name in models:
            raise SettingsError(f"the adapter {name} has the name of the model", hint="Give it another one.")
        models[name] = model.with_adapter(name)
    for each in models.values():
        metrics.begin(each.name)
    has_keys = bool(settings.access.key_hashes)
    app.state.server = ServerState(models, settings.limits, metrics, has_keys, settings.log_texts, settings.lora_dir)
    return app


async def _http_error(request: Request, error: Exception) -> Response:
    """Answers for a path that does not exist, or not for this method."""
    assert isinstance(error, HTTPException)
    what = f"{request.method} {request.url.path}"
    elsewhere = f"/v1{request.url.path}"
    hint = f"It is {elsewhere}." if any(each.path == elsewhere for each in ENDPOINTS) else None
    answer = ApiError(f"There is no {what:.200}", status=error.status_code, code="not_found", hint=hint)
    answer.headers = dict(error.headers or {})
    return error_response(answer)
