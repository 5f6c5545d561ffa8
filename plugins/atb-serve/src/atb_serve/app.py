# SPDX-License-Identifier: Apache-2.0
"""The ASGI application: its routes, and what stands around them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
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
from atb_serve.adapters import load_lora_adapter, unload_lora_adapter
from atb_serve.chat import chat_completions
from atb_serve.completions import completions
from atb_serve.embeddings import embeddings
from atb_serve.engine import ServedModel
from atb_serve.errors import ApiError
from atb_serve.http import error_response
from atb_serve.metrics import Metrics
from atb_serve.openapi import openapi
from atb_serve.page import page
from atb_serve.responses import responses
from atb_serve.settings import ServeSettings
from atb_serve.state import ServerState
from atb_serve.tokens import detokenize, tokenize

if TYPE_CHECKING:
    from atb_core import ModelRunner

ROUTES = (
    ("GET", "/", page),
    ("GET", "/health", status.health),
    ("GET", "/metrics", status.metrics),
    ("GET", "/version", status.version),
    ("GET", "/openapi.json", openapi),
    ("GET", "/v1/models", status.models),
    ("GET", "/v1/models/{name:path}", status.model),
    ("POST", "/v1/completions", completions),
    ("POST", "/v1/chat/completions", chat_completions),
    ("POST", "/v1/responses", responses),
    ("POST", "/v1/embeddings", embeddings),
    ("POST", "/v1/load_lora_adapter", load_lora_adapter),
    ("POST", "/v1/unload_lora_adapter", unload_lora_adapter),
    ("POST", "/tokenize", tokenize),
    ("POST", "/detokenize", detokenize),
)


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
        routes=[Route(path, handler, methods=[method]) for method, path, handler in ROUTES],
        middleware=[Middleware(Gate, settings.access, metrics, {handler: path for _, path, handler in ROUTES})],
        exception_handlers={HTTPException: _http_error},
        lifespan=lifespan,
    )
    # A path with a slash too many is an unknown one, and not sent elsewhere.
    app.router.redirect_slashes = False
    app.state.health = status.Health()
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
    hint = f"It is {elsewhere}." if any(path == elsewhere for _, path, _ in ROUTES) else None
    answer = ApiError(f"There is no {what:.200}", status=error.status_code, code="not_found", hint=hint)
    answer.headers = dict(error.headers or {})
    return error_response(answer)
