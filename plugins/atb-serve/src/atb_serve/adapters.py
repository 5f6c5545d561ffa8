# SPDX-License-Identifier: Apache-2.0
"""`/v1/load_lora_adapter` and `/v1/unload_lora_adapter`: adapters come and go while the server runs."""

from __future__ import annotations

import asyncio
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from atb_core.errors import AtbError, RequestError
from atb_serve.errors import ApiError
from atb_serve.http import JsonResponse, read_body
from atb_serve.schemas import LoadAdapterBody, UnloadAdapterBody
from atb_serve.state import ServerState
from atb_serve.status import card, models


async def load_lora_adapter(request: Request) -> Response:
    """Loads one of the adapters in the server's folder of them; requests may ask for it as a model."""
    state = ServerState.of(request)
    _check_key(state)
    body = await read_body(request, LoadAdapterBody, state.limits)
    base = state.model(request, None)
    async with state.loading:
        known = state.models.get(body.lora_name)
        if known is not None and known.adapter_id is None:
            raise ApiError(f"{body.lora_name!r:.300} is the name of the model itself", param="lora_name")
        if known is None and len(base.runner.adapters) >= state.limits.max_adapters:
            raise ApiError(
                f"{state.limits.max_adapters} adapters are loaded already, which this server allows",
                param="lora_name", hint="Unload one, or raise --max-adapters.",
            )  # fmt: skip
        try:
            directory = await asyncio.to_thread(_directory, state.lora_dir, body.lora_path)
            load = base.runner.load_adapter
            await asyncio.to_thread(load, body.lora_name, directory, replace=bool(body.load_inplace))
        except ApiError:
            raise
        except AtbError as error:
            # What core refuses of the request itself is the name; all else is in the files.
            raise ApiError(str(error), param="lora_name" if isinstance(error, RequestError) else "lora_path") from None
        state.models[body.lora_name] = base.with_adapter(body.lora_name)
        state.metrics.begin(body.lora_name)
        return JsonResponse(card(body.lora_name, state.models[body.lora_name]))


async def unload_lora_adapter(request: Request) -> Response:
    """Forgets an adapter; requests that run with it end as they would. Returns the models that are left."""
    state = ServerState.of(request)
    _check_key(state)
    body = await read_body(request, UnloadAdapterBody, state.limits)
    async with state.loading:
        model = state.models.get(body.lora_name)
        if model is None or model.adapter_id is None:
            raise ApiError(
                f"There is no adapter {body.lora_name!r:.300}", status=404, param="lora_name", code="model_not_found"
            )
        del state.models[body.lora_name]
        model.runner.unload_adapter(model.adapter_id)
        state.metrics.forget(body.lora_name)
        return await models(request)


def _directory(folder: Path | None, wanted: str) -> Path:
    """Looks a directory up among those in `folder`, by its name or its whole path: a request makes no path itself."""
    if folder is None:
        raise ApiError(
            "This server has no folder of adapters to load", status=403, code="forbidden",
            hint="Start it with --lora-dir, or name adapters with --lora.",
        )  # fmt: skip
    for each in folder.iterdir() if folder.is_dir() else ():
        if wanted in (each.name, str(each)) and each.is_dir():
            return each
    raise ApiError(f"{wanted!r:.300} is no directory in the server's folder of adapters", param="lora_path")


def _check_key(state: ServerState) -> None:
    """Raises ApiError on a server without keys: everybody could make it read files."""
    if not state.has_keys:
        raise ApiError(
            "Adapters are loaded and unloaded by who has the server's key, and this server has none",
            status=403, code="forbidden", hint="Start it with --api-key-file, or name adapters with --lora.",
        )  # fmt: skip
