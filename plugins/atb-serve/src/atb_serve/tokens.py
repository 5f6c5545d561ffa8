# SPDX-License-Identifier: Apache-2.0
"""`/tokenize` and `/detokenize`."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from atb_serve.errors import ApiError
from atb_serve.http import JsonResponse, read_body
from atb_serve.parameters import check_at_most, plain_messages, plain_tools
from atb_serve.replies import Text, Tokens
from atb_serve.schemas import DetokenizeBody, TokenizeBody
from atb_serve.state import ServerState


async def tokenize(request: Request) -> Response:
    """Returns the tokens of a text or of a conversation."""
    state = ServerState.of(request)
    body = await read_body(request, TokenizeBody, state.limits)
    model = state.model(request, body.model)
    tokenizer = model.tokenizer
    if (body.prompt is None) == (body.messages is None):
        raise ApiError("Give 'prompt' or 'messages'", param="prompt")

    def encode() -> list[int]:
        if body.messages is None:
            assert body.prompt is not None
            return tokenizer.encode(body.prompt, body.add_special_tokens)
        messages = plain_messages(body.messages, model.knows_developer)
        tools = plain_tools(body.tools, state.limits)
        for_template: dict[str, Any] = {"tools": tools, "chat_template_kwargs": body.chat_template_kwargs}
        return model.runner.encode(
            messages, add_generation_prompt=body.add_generation_prompt, **for_template
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
    for token_id in body.tokens:
        if token_id < 0:
            raise ApiError("'tokens' has a negative number", param="tokens")
        check_at_most("tokens", token_id, model.runner.vocab_size - 1)
    text = await model.run_encoding(lambda: tokenizer.decode(body.tokens, skip_special_tokens=False), "tokens")
    return JsonResponse(Text(text))
