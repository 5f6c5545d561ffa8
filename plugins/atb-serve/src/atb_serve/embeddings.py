# SPDX-License-Identifier: Apache-2.0
"""`/v1/embeddings`: texts and token ids become vectors."""

from __future__ import annotations

import asyncio
import base64
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from atb_core.errors import RequestError, RequestTimeoutError
from atb_serve.errors import ApiError, api_error
from atb_serve.http import JsonResponse, read_body, until_client_leaves
from atb_serve.parameters import check_at_most, prompts_in
from atb_serve.replies import EmbeddingData, Embeddings, EmbeddingUsage
from atb_serve.schemas import EmbeddingsBody
from atb_serve.state import ServerState
from atb_serve.waiting import within

if TYPE_CHECKING:
    from atb_core import EmbeddingOutput
    from atb_serve.engine import ServedModel


async def embeddings(request: Request) -> Response:
    """Answers a request."""
    state = ServerState.of(request)
    body = await read_body(request, EmbeddingsBody, state.limits)
    model = state.model(request, body.model)
    if model.adapter_id is not None:
        raise ApiError(
            "Embeddings are those of the model itself, not of an adapter", param="model",
            hint=f"Ask for {model.base_name!r}.",
        )  # fmt: skip
    inputs = prompts_in(body.input, "input")
    check_at_most("input", len(inputs), state.limits.max_prompts, " inputs")
    work = within(state.limits.request_timeout, _embed(state, request, model, inputs, body.dimensions))
    try:
        outputs = await until_client_leaves(request.receive, work)
    except asyncio.TimeoutError:
        raise RequestTimeoutError("The vectors were not finished in the time that a request has") from None
    count = request.state.facts["prompt_tokens"]
    as_text = body.encoding_format == "base64"
    data = [EmbeddingData(index, _encoded(each.embedding, as_text)) for index, each in enumerate(outputs)]
    return JsonResponse(Embeddings(model.name, data, EmbeddingUsage(count, count)))


async def _embed(
    state: ServerState, request: Request, model: ServedModel, inputs: list[Any], dimensions: int | None
) -> list[EmbeddingOutput]:
    prompts = [{"prompt_token_ids": (await model.encode(each, "input")).token_ids} for each in inputs]
    request.state.facts["prompt_tokens"], found = 0, []
    try:
        async with aclosing(model.embed(prompts, dimensions)) as outputs:
            async for output in outputs:
                state.embedded(request, model, output)
                found.append(output)
    except RequestError as error:
        raise api_error(error, "dimensions" if "dimensions" in error.message else "model") from None
    return found


def _encoded(vector: np.ndarray[Any, np.dtype[np.float32]], as_text: bool) -> list[float] | str:
    if as_text:
        return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
    return [float(number) for number in vector]
