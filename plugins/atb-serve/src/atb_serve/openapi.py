# SPDX-License-Identifier: Apache-2.0
"""`/openapi.json`: the description of the API, from the schemas of its bodies."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from atb_serve import replies
from atb_serve.http import JsonResponse

if TYPE_CHECKING:
    from atb_serve.routes import Endpoint

_REFERENCE = "#/components/schemas/{name}"
# Statuses of errors that every path may have.
_ERRORS = ("400", "401", "403", "404", "408", "413", "415", "421", "429", "503", "504")


async def openapi(request: Request) -> Response:
    """Returns the description."""
    return JsonResponse(request.app.state.description())


def description(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """Returns the description of routes in OpenAPI 3.1."""
    described = [each for each in endpoints if each.is_described]
    types = [kind for each in described for kind in (each.answer, each.body) if kind not in (None, "text")]
    found, components = msgspec.json.schema_components([*types, replies.Problem], ref_template=_REFERENCE)
    by_type = dict(zip([*types, replies.Problem], found, strict=True))
    paths: dict[str, Any] = {}
    for each in described:
        # What a client writes in place of a name has no slash, or an encoded one.
        path = each.path.replace(":path}", "}")
        paths[path] = {each.method.lower(): _operation(path, each, by_type)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "atb serve", "version": version("atb-serve")},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{"key": []}, {}],
    }


def _operation(path: str, endpoint: Endpoint, by_type: dict[Any, Any]) -> dict[str, Any]:
    error = {"description": "refused", "content": {"application/json": {"schema": by_type[replies.Problem]}}}
    content = {"application/json": {"schema": by_type.get(endpoint.answer, {})}}
    if endpoint.answer == "text":
        content = {"text/plain": {"schema": {"type": "string"}}}
    if endpoint.streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    responses = {"200": {"description": "done", "content": content}, **dict.fromkeys(_ERRORS, error)}
    if path == "/health":
        responses["503"] = {"description": "the engine cannot step", "content": content}
    operation: dict[str, Any] = {"operationId": path.strip("/").replace("/", "-"), "responses": responses}
    if endpoint.body is not None:
        body = {"schema": by_type[endpoint.body], "example": endpoint.example}
        operation["requestBody"] = {"required": True, "content": {"application/json": body}}
    if "{name}" in path:
        name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
        operation["parameters"] = [name]
    return operation
