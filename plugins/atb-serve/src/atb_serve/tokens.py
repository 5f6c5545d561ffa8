# SPDX-License-Identifier: Apache-2.0
"""`/tokenize` and `/detokenize`."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from atb_core.errors import shown
from atb_serve.errors import ApiError
from atb_serve.http import JsonResponse, read_body
from atb_serve.parameters import plain_messages, plain_tools
from atb_serve.replies import Text, Tokens
from atb_serve.schemas import DetokenizeBody, TokenizeBody
from atb_serve.state import ServerState

# Parameters of `/tokenize` that only one kind of text has.
_OF_MESSAGES, _OF_PROMPT = ("add_generation_prompt", "tools", "chat_template_kwargs"), ("add_special_tokens",)


async def tokenize(request: Request) -> Response:
    """Returns the tokens of a text or of a conversation."""
    state = ServerState.of(request)
    body = await read_body(request, TokenizeBody, state.limits)
    model = state.model(request, body.model)
    tokenizer = model.tokenizer
    if (body.prompt is None) == (body.messages is None):
        raise ApiError("Give 'prompt' or 'messages'", param="prompt")
    for name in _OF_MESSAGES if body.messages is None else _OF_PROMPT:
        if getattr(body, name) is not None:
            other = "messages" if body.messages is None else "prompt"
            raise ApiError(f"'{name}' belongs to '{other}'", param=name)

    def encode() -> list[int]:
        if body.messages is None:
            assert body.prompt is not None
            return tokenizer.encode(body.prompt, body.add_special_tokens is not False)
        messages = plain_messages(body.messages, model.knows_developer)
        tools = plain_tools(body.tools, state.limits)
        for_template: dict[str, Any] = {"tools": tools, "chat_template_kwargs": body.chat_template_kwargs}
        return model.runner.encode(
            messages, add_generation_prompt=body.add_generation_prompt is not False, **for_template
        ).token_ids  # fmt: skip

    ids = await model.run_encoding(encode, "prompt" if body.messages is None else "messages")
    texts = None
    if body.return_token_strs:
        texts = [tokenizer.decode([one], skip_special_tokens=False) for one in ids]
    return JsonResponse(Tokens(len(ids), model.runner.max_model_len, ids, texts))


async def detokenize(request: Request) -> Response:
    """Returns the text of tokens."""
    state = ServerState.of(request)
    body = await read_body(request, DetokenizeBody, state.limits)
    model = state.model(request, body.model)
    tokenizer = model.tokenizer
    last = model.runner.vocab_size - 1
    wrong = next((token_id for token_id in body.tokens if not 0 <= token_id <= last), None)
    if wrong is not None:
        raise ApiError(f"'tokens' has {shown(wrong)}; the model has ids from 0 to {last}", param="tokens")
    text = await model.run_encoding(lambda: tokenizer.decode(body.tokens, skip_special_tokens=False), "tokens")
    return JsonResponse(Text(text))
