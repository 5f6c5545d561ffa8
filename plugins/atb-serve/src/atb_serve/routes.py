# SPDX-License-Identifier: Apache-2.0
"""The routes of the server: who answers, and what the description of the API says of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response

from atb_serve import replies, schemas, status
from atb_serve.adapters import load_lora_adapter, unload_lora_adapter
from atb_serve.chat import chat_completions
from atb_serve.completions import completions
from atb_serve.embeddings import embeddings
from atb_serve.openapi import openapi
from atb_serve.page import page
from atb_serve.responses import responses
from atb_serve.tokens import detokenize, tokenize


@dataclass(frozen=True)
class Endpoint:
    """One route.

    Attributes:
        method, path: What it answers; `{name:path}` in a path takes slashes, too.
        handler: Answers a request.
        answer: Type of the answer's JSON; `None` if that is not described, and "text" for plain text.
        body: Type of the request's JSON, for POST.
        example: Such a body, without `model`.
        streams: True if the answer may be a stream of events.
        is_described: False for what is no part of the API.
    """

    method: Literal["GET", "POST"]
    path: str
    handler: Callable[[Request], Awaitable[Response]]
    answer: Any = None
    body: Any = None
    example: dict[str, Any] = field(default_factory=dict)
    streams: bool = False
    is_described: bool = True


_HELLO = {"messages": [{"role": "user", "content": "Hello"}]}
_SQL = {"lora_name": "sql", "lora_path": "sql"}
ENDPOINTS = (
    Endpoint("GET", "/", page, is_described=False),
    Endpoint("GET", "/health", status.health),
    Endpoint("GET", "/metrics", status.metrics, "text"),
    Endpoint("GET", "/version", status.version),
    Endpoint("GET", "/openapi.json", openapi, is_described=False),
    Endpoint("GET", "/v1/models", status.models, replies.ModelList),
    Endpoint("GET", "/v1/models/{name:path}", status.model, replies.ModelCard),
    Endpoint(
        "POST", "/v1/completions", completions, replies.TextCompletion, schemas.CompletionBody,
        {"prompt": "Once", "max_tokens": 16}, streams=True,
    ),
    Endpoint(
        "POST", "/v1/chat/completions", chat_completions, replies.ChatCompletion, schemas.ChatBody, _HELLO, streams=True
    ),
    Endpoint(
        "POST", "/v1/responses", responses, dict[str, Any], schemas.ResponsesBody, {"input": "Hello"}, streams=True
    ),
    Endpoint(
        "POST", "/v1/embeddings", embeddings, replies.Embeddings, schemas.EmbeddingsBody, {"input": ["Hello", "you"]}
    ),
    Endpoint(
        "POST", "/v1/load_lora_adapter", load_lora_adapter, replies.ModelCard, schemas.LoadAdapterBody, _SQL
    ),
    Endpoint(
        "POST", "/v1/unload_lora_adapter", unload_lora_adapter, replies.ModelList, schemas.UnloadAdapterBody,
        {"lora_name": "sql"},
    ),
    Endpoint("POST", "/tokenize", tokenize, replies.Tokens, schemas.TokenizeBody, {"prompt": "Hello"}),
    Endpoint("POST", "/detokenize", detokenize, replies.Text, schemas.DetokenizeBody, {"tokens": [1, 2]}),
)  # fmt: skip
