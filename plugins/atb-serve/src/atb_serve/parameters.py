# SPDX-License-Identifier: Apache-2.0
"""Turns the parameters of requests into those of core, within the limits of the server."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from atb_core import SamplingParams
from atb_core.errors import RequestError, shown
from atb_serve.errors import ApiError, api_error
from atb_serve.schemas import ChatBody, CompletionBody, Message, SamplingBody, Tool
from atb_serve.settings import Limits

# Parameters that core knows by the same name.
_SAME = (
    "n", "seed", "temperature", "top_p", "presence_penalty", "frequency_penalty", "top_k", "min_p",
    "repetition_penalty", "min_tokens", "ignore_eos", "stop_token_ids", "skip_special_tokens",
)  # fmt: skip
# OpenAI's default for texts, which vLLM has too.
_DEFAULT_TEXT_TOKENS = 16
# Fields of a message, by the one role that has them.
_OF_ROLE = {
    "tool_calls": "assistant", "reasoning_content": "assistant", "reasoning": "assistant", "tool_call_id": "tool",
}  # fmt: skip


def check_at_most(param: str, value: int | None, limit: int | None, what: str = "") -> None:
    """Raises ApiError for a value above the server's limit."""
    if value is not None and limit is not None and value > limit:
        raise ApiError(f"'{param}' is {shown(value)}{what}; this server allows at most {limit}", param=param)


def prompts_in(given: str | list[str | int | list[int]], param: str) -> list[Any]:
    """Returns the prompts of a request, which may be a text, token ids, or a list of these.

    Raises:
        ApiError: The list has token ids beside other prompts.
    """
    if isinstance(given, str) or not given:
        return [given]
    are_ids = [isinstance(each, int) for each in given]
    if any(are_ids) and not all(are_ids):
        message = f"'{param}' has a token id beside texts or lists: give a list of one kind"
        raise ApiError(message, param=f"{param}[{are_ids.index(not are_ids[0])}]")
    return [given] if are_ids[0] else given


def text_params(body: CompletionBody, defaults: SamplingParams, limits: Limits) -> SamplingParams:
    """Returns the sampling parameters of a request for texts.

    Raises:
        ApiError: A parameter is out of range, or there is no such thing here.
    """
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise ApiError("'best_of' other than n is not supported", param="best_of", code="unsupported_parameter")
    check_at_most("logprobs", body.logprobs, limits.max_logprobs)
    values: dict[str, Any] = {"logprobs": body.logprobs}
    if body.echo and body.logprobs is not None:
        values["prompt_logprobs"] = body.logprobs
    values["max_tokens"] = _DEFAULT_TEXT_TOKENS if body.max_tokens is None else body.max_tokens
    if body.max_tokens == 0:
        if not body.echo:
            raise ApiError("'max_tokens' of 0 needs 'echo'", param="max_tokens")
        values["max_tokens"] = 1  # the one token is computed with the prompt, and left out of the answer
    return _sampling_params(body, values, defaults, limits)


def chat_params(body: ChatBody, defaults: SamplingParams, limits: Limits) -> SamplingParams:
    """Returns the sampling parameters of a request for answers to a conversation; see `text_params`."""
    if body.max_tokens is not None and body.max_completion_tokens is not None:
        raise ApiError("Give 'max_completion_tokens' or 'max_tokens', not both", param="max_tokens")
    check_at_most("top_logprobs", body.top_logprobs, limits.max_logprobs)
    if body.top_logprobs and not body.logprobs:
        raise ApiError("'top_logprobs' needs 'logprobs' to be true", param="top_logprobs")
    values: dict[str, Any] = {"logprobs": (body.top_logprobs or 0) if body.logprobs else None}
    name = "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"
    # Without one, an answer goes on to its end or to that of the context.
    values["max_tokens"] = getattr(body, name)
    return _sampling_params(body, values, defaults, limits, {"max_tokens": name, "logprobs": "top_logprobs"})


def _sampling_params(
    body: SamplingBody,
    values: dict[str, Any],
    defaults: SamplingParams,
    limits: Limits,
    names: Mapping[str, str] = MappingProxyType({}),
) -> SamplingParams:
    """Returns the parameters of a request; those of core may have other `names` in it."""
    check_at_most("n", body.n, limits.max_n)
    check_at_most(names.get("max_tokens", "max_tokens"), values["max_tokens"], limits.max_tokens)
    stop = [body.stop] if isinstance(body.stop, str) else (body.stop or [])
    check_at_most("stop", len(stop), limits.max_stop, " strings")
    check_at_most("logit_bias", len(body.logit_bias or ()), limits.max_logit_bias, " token ids")
    check_at_most("stop_token_ids", len(body.stop_token_ids or ()), limits.max_logit_bias, " token ids")
    if body.stream_options is not None and not body.stream:
        raise ApiError("'stream_options' needs 'stream' to be true", param="stream_options")
    options = body.stream_options
    if options is not None and options.continuous_usage_stats and not options.include_usage:
        param = "stream_options.continuous_usage_stats"
        raise ApiError(f"'{param}' needs 'include_usage' to be true", param=param)
    given = {name: value for name in _SAME if (value := getattr(body, name)) is not None}
    if values["max_tokens"] is None:
        values["max_tokens"] = limits.max_tokens
    given |= values
    try:
        if stop:
            given["stop"] = stop
        if body.logit_bias:
            given["logit_bias"] = _token_bias(body.logit_bias)
        return dataclasses.replace(defaults, **given)
    except RequestError as error:
        answer = api_error(error)
        if answer.param is not None and answer.param in names:
            answer.rename(names[answer.param])
        raise answer from None


def _token_bias(bias: dict[str, float]) -> dict[int, float]:
    checked = {}
    for key, value in bias.items():
        # One that is written in two ways would be there twice.
        if not (key.isascii() and key.isdigit() and len(key) < 10 and str(int(key)) == key):
            raise RequestError(f"logit_bias has the key {key!r:.50}, which is not a token id")
        checked[int(key)] = value
    return checked


def plain_messages(messages: list[Message], knows_developer: bool) -> list[dict[str, Any]]:
    """Returns messages as chat templates read them.

    Args:
        messages: Messages of a request.
        knows_developer: True if the template knows the role `developer`; others would drop such a message, so it
            becomes one of the system.

    Raises:
        ApiError: The arguments of a tool call are no JSON object, or a tool's message lacks `tool_call_id`.
    """
    if not messages:
        raise ApiError("'messages' is empty", param="messages")
    return [_plain_message(message, f"messages[{i}]", knows_developer) for i, message in enumerate(messages)]


def _plain_message(message: Message, param: str, knows_developer: bool) -> dict[str, Any]:
    role = "system" if message.role == "developer" and not knows_developer else message.role
    if role == "tool" and message.tool_call_id is None:
        raise ApiError("A tool's message needs the id of its call", param=f"{param}.tool_call_id")
    for name, owner in _OF_ROLE.items():
        if getattr(message, name) and role != owner:
            raise ApiError(f"'{param}.{name}' belongs to a message of the role {owner!r}", param=f"{param}.{name}")
    plain: dict[str, Any] = {"role": role, "content": message.content}
    thoughts = message.reasoning if message.reasoning_content is None else message.reasoning_content
    further = {"name": message.name, "tool_call_id": message.tool_call_id, "reasoning_content": thoughts}
    plain.update((name, value) for name, value in further.items() if value is not None)
    if message.tool_calls:
        plain["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {
                "name": call.function.name,
                "arguments": arguments_in(call.function.arguments, f"{param}.tool_calls[{i}].function.arguments"),
            }}
            for i, call in enumerate(message.tool_calls)
        ]  # fmt: skip
    return plain


def arguments_in(text: str, param: str) -> dict[str, Any]:
    """Returns the arguments of a call as the object that templates write out again.

    Raises:
        ApiError: They are no JSON object.
    """
    try:
        value = msgspec.json.decode(text) if text.strip() else {}
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ApiError(f"'{param}' must be a JSON object as text", param=param)
    return value


def plain_tools(tools: list[Tool] | None, limits: Limits) -> list[dict[str, Any]] | None:
    """Returns tools as chat templates read them; `None` without any."""
    check_at_most("tools", len(tools or ()), limits.max_tools, " functions")
    if not tools:
        return None
    names = [tool.function.name for tool in tools]
    if len(set(names)) < len(names):
        raise ApiError("Two tools have the same name", param="tools")
    plain = msgspec.to_builtins(tools)
    for tool in plain:
        function = tool["function"]
        tool["function"] = {key: value for key, value in function.items() if value is not None and key != "strict"}
        tool["function"].setdefault("description", "")
        tool["function"].setdefault("parameters", {"type": "object", "properties": {}})
    return [{"type": tool["type"], "function": tool["function"]} for tool in plain]
