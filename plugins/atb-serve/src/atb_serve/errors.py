# SPDX-License-Identifier: Apache-2.0
"""Errors in OpenAI's form: a message, a type, the parameter and a code."""

from __future__ import annotations

import logging
import re

import msgspec

from atb_core import SamplingParams
from atb_core.errors import (
    AtbError,
    ContextLengthError,
    RequestError,
    RequestTimeoutError,
    TokenizerError,
    printable,
)
from atb_serve.replies import Problem, ProblemFacts
from atb_serve.turnover import BusyError

_LOG = logging.getLogger("atb_serve")
_PARAMETERS = frozenset(SamplingParams.__dataclass_fields__)
_INVALID = "invalid_request_error"
_PLACE = re.compile(r" - at `(?:key in )?\$\.?(.*?)`$")
_UNKNOWN_FIELD = re.compile(r"unknown field `(.*?)`")
_WHOLE_CONVERSATION = "Nothing is stored: send the whole conversation as 'input'."
_INSTEAD = {
    "conversation": _WHOLE_CONVERSATION,
    "function_call": "Send 'tool_choice', and 'tool_calls' in messages.",
    "functions": "Send 'tools'.",
    "previous_response_id": _WHOLE_CONVERSATION,
    "reasoning_effort": "'chat_template_kwargs' sets what the model's chat template knows.",
}
_MISSING_FIELD = re.compile(r"missing required field `(.*?)`")


class ApiError(AtbError):
    """Error for a request that the server does not serve.

    Args:
        message: What is wrong.
        status: HTTP status.
        param: The parameter that it is about.
        code: A word for programs.
        kind: OpenAI's `type` of the error.
        hint: The next step.
        headers: Headers of the answer.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        kind: str = _INVALID,
        hint: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message, hint)
        self.status, self.param, self.code, self.kind = status, param, code, kind
        self.headers = headers or {}

    def rename(self, param: str) -> None:
        """Names another parameter, in the message too."""
        if self.param is not None:
            self.message = self.message.replace(self.param, param)
        self.param = param

    def body(self) -> Problem:
        """Returns the answer's body."""
        return Problem(ProblemFacts(str(self), self.kind, self.param, self.code))


def api_error(error: BaseException, param: str | None = None) -> ApiError:
    """Returns the answer to an error; what is the server's own fault is logged and not described.

    Args:
        error: What was raised.
        param: The parameter that an error of the request is about, if it names none itself.
    """
    if isinstance(error, ApiError):
        return error
    if isinstance(error, BusyError):
        retry = {"Retry-After": str(error.retry_after)}
        return ApiError(str(error), status=429, code="queue_full", kind="rate_limit_error", headers=retry)
    if isinstance(error, RequestTimeoutError):
        return ApiError(str(error), status=504, code="timeout", kind="timeout_error")
    if isinstance(error, ContextLengthError):
        return ApiError(str(error), param=param, code="context_length_exceeded")
    if isinstance(error, (RequestError, TokenizerError)):
        return ApiError(str(error), param=param or _param_of(error))
    _LOG.error("a request failed", exc_info=error)
    return ApiError(
        "The server failed to answer this request; its log says why", status=500, kind="server_error", code="internal"
    )


def _param_of(error: AtbError) -> str | None:
    """Returns the parameter that core's message begins with."""
    words = re.split(r"[\s=:\[]", error.message, maxsplit=1)
    if words[0] in ("A", "Stop"):  # "A stop string ..."
        return "stop"
    return words[0] if words[0] in _PARAMETERS else None


def invalid_json(error: Exception) -> ApiError:
    """Returns the answer to a body that is no JSON, or not the JSON of a request."""
    text = printable(error)
    if not isinstance(error, msgspec.ValidationError):
        what = "nests too deeply" if isinstance(error, RecursionError) else f"is not valid JSON in UTF-8: {text}"
        return ApiError(f"The body {what}", code="invalid_json")
    place = _PLACE.search(text)
    param = place[1] if place else ""
    message = text[: place.start()] if place else text
    if unknown := _UNKNOWN_FIELD.search(message):
        param = f"{param}.{unknown[1]}".lstrip(".")
        return ApiError(f"Unknown parameter: '{param}'", param=param, code="unknown_parameter")
    if missing := _MISSING_FIELD.search(message):
        param = f"{param}.{missing[1]}".lstrip(".")
        return ApiError(f"Missing required parameter: '{param}'", param=param, code="missing_required_parameter")
    if message.startswith("Expected `null`, got"):
        instead = _INSTEAD.get(param.rpartition(".")[2], "Leave it out.")
        return ApiError(f"'{param}' is not supported", param=param, code="unsupported_parameter", hint=instead)
    where = f"'{param}'" if param else "The body"
    hint = "/openapi.json has those that are known." if message.startswith("Invalid enum value") else None
    return ApiError(f"{where} is invalid: {message}", param=param or None, code="invalid_type", hint=hint)
