# SPDX-License-Identifier: Apache-2.0
"""`/health`, `/metrics`, `/version` and `/v1/models`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from importlib.metadata import version as version_of

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from atb_core.errors import AtbError
from atb_serve.engine import ServedModel
from atb_serve.errors import ApiError
from atb_serve.http import JsonResponse
from atb_serve.replies import ModelCard, ModelList
from atb_serve.state import ServerState

# Anybody may ask for the health: the engine takes one step for all who ask within this time.
_HEALTH_SECONDS = 1.0
_HEALTH_TIMEOUT = 30.0


class Health:
    """Steps the engines at most once a second, whoever asks."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._checked, self._problem = float("-inf"), ""

    async def problem(self, models: Collection[ServedModel]) -> str:
        """Returns why the server cannot answer; empty if it can."""
        async with self._lock:
            if time.monotonic() - self._checked >= _HEALTH_SECONDS:
                self._problem = await self._check(models)
                self._checked = time.monotonic()
            return self._problem

    async def _check(self, models: Collection[ServedModel]) -> str:
        for model in models:
            try:
                await asyncio.wait_for(model.engine.check_health(), _HEALTH_TIMEOUT)
            except asyncio.TimeoutError:
                return f"no step within {_HEALTH_TIMEOUT:g} s"
            except AtbError:
                return "the engine cannot step"
        return ""


async def problem_of(app: Starlette) -> str:
    """Returns why an application cannot answer; empty if its engines take steps."""
    state: ServerState = app.state.server
    problem: str = await app.state.health.problem({each.engine: each for each in state.models.values()}.values())
    return problem


async def health(request: Request) -> Response:
    """Answers 200 if the engine has just taken a step, else 503."""
    problem = await problem_of(request.app)
    return JsonResponse({"status": problem or "ok"}, 503 if problem else 200)


async def metrics(request: Request) -> Response:
    """Returns the metrics in Prometheus's text format."""
    registry = ServerState.of(request).metrics.registry
    return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def version(request: Request) -> Response:
    """Returns the versions of server and core."""
    return JsonResponse({"version": version_of("atb-serve"), "atb_core": version_of("atb-core")})


async def models(request: Request) -> Response:
    """Lists the models."""
    return JsonResponse(ModelList([card(name, each) for name, each in ServerState.of(request).models.items()]))


async def model(request: Request) -> Response:
    """Describes one model."""
    found = ServerState.of(request).models.get(request.path_params["name"])
    if found is None:
        raise ApiError("There is no such model", status=404, param="model", code="model_not_found")
    return JsonResponse(card(request.path_params["name"], found))


def card(name: str, model: ServedModel) -> ModelCard:
    """Returns the description of a model."""
    return ModelCard(name, model.created, model.runner.max_model_len, parent=model.base_name)
