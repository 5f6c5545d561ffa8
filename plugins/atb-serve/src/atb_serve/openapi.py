# SPDX-License-Identifier: Apache-2.0
"""`/openapi.json`: the description of the API, from the schemas of its bodies."""

from __future__ import annotations

import functools
from importlib.metadata import version
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from atb_serve import replies, schemas
from atb_serve.http import JsonResponse

_REFERENCE = "#/components/schemas/{name}"
# Bodies, answers and an example of each path.
_POST = {
    "/v1/completions": (schemas.CompletionBody, replies.TextCompletion, {"prompt": "Once", "max_tokens": 16}),
    "/v1/chat/completions": (
        schemas.ChatBody, replies.ChatCompletion, {"messages": [{"role": "user", "content": "Hello"}]},
    ),
    "/v1/responses": (schemas.ResponsesBody, dict[str, Any], {"input": "Hello"}),
    "/v1/embeddings": (schemas.EmbeddingsBody, replies.Embeddings, {"input": ["Hello", "you"]}),
    "/v1/load_lora_adapter": (schemas.LoadAdapterBody, replies.ModelCard, {"lora_name": "sql", "lora_path": "sql"}),
    "/v1/unload_lora_adapter": (schemas.UnloadAdapterBody, replies.ModelList, {"lora_name": "sql"}),
    "/tokenize": (schemas.TokenizeBody, replies.Tokens, {"prompt": "Hello"}),
    "/detokenize": (schemas.DetokenizeBody, replies.Text, {"tokens": [1, 2]}),
}  # fmt: skip
_GET: dict[str, type | None] = {
    "/health": None, "/metrics": None, "/version": None, "/v1/models": replies.ModelList,
    "/v1/models/{name}": replies.ModelCard,
}  # fmt: skip
# Statuses of errors that every path may have.
_ERRORS = ("400", "401", "403", "404", "408", "413", "415", "421", "429", "503", "504")


async def openapi(request: Request) -> Response:
    """Returns the description."""
    return JsonResponse(description())


@functools.cache
def description() -> dict[str, Any]:
    """Returns the description of all paths in OpenAPI 3.1."""
    types = [
        *(kind for body, answer, _ in _POST.values() for kind in (body, answer)),
        *filter(None, _GET.values()),
        replies.Problem,
    ]
    found, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    by_type = dict(zip(types, found, strict=True))
    paths: dict[str, Any] = {}
    for path, (body, answer, example) in _POST.items():
        content = {"application/json": {"schema": by_type[body], "example": example}}
        paths[path] = {"post": {**_operation(path, by_type[answer], by_type), "requestBody": {
            "required": True, "content": content}}}  # fmt: skip
        if body in (schemas.CompletionBody, schemas.ChatBody, schemas.ResponsesBody):
            paths[path]["post"]["responses"]["200"]["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    for path, kind in _GET.items():
        paths[path] = {"get": _operation(path, {} if kind is None else by_type[kind], by_type)}
        if "{name}" in path:
            name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
            paths[path]["get"]["parameters"] = [name]
    paths["/metrics"]["get"]["responses"]["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "atb serve", "version": version("atb-serve")},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{"key": []}, {}],
    }


def _operation(path: str, schema: dict[str, Any], by_type: dict[Any, Any]) -> dict[str, Any]:
    error = {"description": "refused", "content": {"application/json": {"schema": by_type[replies.Problem]}}}
    answer = {"description": "done", "content": {"application/json": {"schema": schema}}}
    responses = {"200": answer, **dict.fromkeys(_ERRORS, error)}
    if path == "/health":
        responses["503"] = {"description": "the engine cannot step", "content": answer["content"]}
    return {"operationId": path.strip("/").replace("/", "-"), "responses": responses}
