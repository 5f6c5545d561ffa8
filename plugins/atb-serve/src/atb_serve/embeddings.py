# SPDX-License-Identifier: Apache-2.0
"""`/v1/embeddings`: texts and token ids become vectors."""

from __future__ import annotations

import asyncio
import base64
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
    inputs = prompts_in(body.input)
    check_at_most("input", len(inputs), state.limits.max_prompts, " inputs")
    work = asyncio.wait_for(_embed(model, inputs, body.dimensions), state.limits.request_timeout)
    try:
        outputs = await until_client_leaves(request.receive, work)
    except asyncio.TimeoutError:
        raise RequestTimeoutError("The vectors were not finished in the time that a request has") from None
    count = sum(len(output.prompt_token_ids) for output in outputs)
    request.state.facts["prompt_tokens"] = count
    as_text = body.encoding_format == "base64"
    data = [EmbeddingData(index, _encoded(each.embedding, as_text)) for index, each in enumerate(outputs)]
    return JsonResponse(Embeddings(model.name, data, EmbeddingUsage(count, count)))


async def _embed(model: ServedModel, inputs: list[Any], dimensions: int | None) -> list[EmbeddingOutput]:
    prompts = [{"prompt_token_ids": (await model.encode(each, "input")).token_ids} for each in inputs]
    try:
        return await model.embed(prompts, dimensions)
    except RequestError as error:
        raise api_error(error, "dimensions" if "dimensions" in error.message else "model") from None


def _encoded(vector: np.ndarray[Any, np.dtype[np.float32]], as_text: bool) -> list[float] | str:
    if as_text:
        return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
    return [float(number) for number in vector]
