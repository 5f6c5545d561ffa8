# SPDX-License-Identifier: Apache-2.0
"""`/v1/responses`: conversations are answered with items. Nothing is stored: a request has its whole conversation."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from atb_serve.answers import Piece, arguments_text
from atb_serve.chat import ChatWork, call_id
from atb_serve.errors import ApiError
from atb_serve.http import EventStream, JsonResponse, read_body, until_client_leaves
from atb_serve.parameters import arguments_in
from atb_serve.replies import encode_json
from atb_serve.schemas import (
    ChatBody,
    FlatJsonSchema,
    Function,
    FunctionCall,
    FunctionName,
    InputItem,
    InputPart,
    JsonSchema,
    JsonSchemaFormat,
    Message,
    ResponsesBody,
    Tool,
    ToolCallBody,
    ToolChoice,
)
from atb_serve.state import ServerState, usage_of

if TYPE_CHECKING:
    from atb_core import RequestOutput

# What parameters of a conversation are called here.
_NAMES = {
    "messages": "input", "max_completion_tokens": "max_output_tokens", "response_format": "text.format",
}  # fmt: skip


async def responses(request: Request) -> Response:
    """Answers a request, whole or as a stream."""
    state = ServerState.of(request)
    body = await read_body(request, ResponsesBody, state.limits)
    model = state.model(request, body.model)
    try:
        work = _Responses(ChatWork(state, model, _chat_body(body), request), body)
        events = work.events()
        if not body.stream:
            return JsonResponse(await until_client_leaves(request.receive, _last(events)))
        first = await until_client_leaves(request.receive, anext(events))
    except Exception as error:
        raise _renamed(error) from None
    return EventStream(_event(first), _events(events, request), state.limits.idle_timeout)


async def _last(events: AsyncGenerator[dict[str, Any], None]) -> dict[str, Any]:
    """Reads a stream to its end and returns the complete response."""
    found: dict[str, Any] = {}
    async with aclosing(events):
        async for event in events:
            found = event
    return dict(found["response"])


async def _events(events: AsyncGenerator[dict[str, Any], None], request: Request) -> AsyncGenerator[bytes, None]:
    async with aclosing(events):
        try:
            async for each in events:
                yield _event(each)
        except Exception as error:
            yield _event(_problem(ServerState.of(request).failed(request, error)))


def _problem(problem: ApiError) -> dict[str, Any]:
    return {"type": "error", "message": str(problem), "code": problem.code, "param": problem.param}


def _event(event: dict[str, Any]) -> bytes:
    return b"".join((b"event: ", event["type"].encode(), b"\ndata: ", encode_json(event), b"\n\n"))


def _renamed(error: Exception) -> Exception:
    """Returns an error of a conversation with the parameter's name in this API."""
    # Items and messages are not numbered alike.
    if isinstance(error, ApiError) and (name := (error.param or "").partition("[")[0]) in _NAMES:
        error.rename(_NAMES[name])
    return error


def _chat_body(body: ResponsesBody) -> ChatBody:
    """Returns the request as one for an answer to a conversation."""
    if body.background:
        raise ApiError("'background' is not supported", param="background", code="unsupported_parameter")
    messages = [] if body.instructions is None else [Message(role="system", content=body.instructions)]
    items = [InputItem(role="user", content=body.input)] if isinstance(body.input, str) else body.input
    for index, item in enumerate(items):
        _add(messages, item, f"input[{index}]")
    form = None if body.text is None else body.text.format
    if isinstance(form, FlatJsonSchema):
        schema = JsonSchemaFormat(json_schema=JsonSchema(name=form.name, schema=form.schema))
    choice: Any = body.tool_choice
    if not isinstance(choice, (str, type(None))):
        choice = ToolChoice(function=FunctionName(name=choice.name))
    return ChatBody(
        messages=messages,
        max_completion_tokens=body.max_output_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        tools=None if body.tools is None else [_tool(msgspec.structs.asdict(tool)) for tool in body.tools],
        tool_choice=choice,
        parallel_tool_calls=body.parallel_tool_calls,
        response_format=schema if isinstance(form, FlatJsonSchema) else form,
    )


def _tool(fields: dict[str, Any]) -> Tool:
    del fields["type"]
    return Tool(type="function", function=Function(**fields))


def _add(messages: list[Message], item: InputItem, param: str) -> None:
    """Adds an item to a conversation; calls belong to the assistant's message before them."""
    if item.type == "reasoning":
        return
    needed = {"message": ("role", "content"), "function_call": ("call_id", "name", "arguments")}
    for name in needed.get(item.type, ("call_id", "output")):
        if getattr(item, name) is None:
            raise ApiError(f"'{param}' needs '{name}'", param=f"{param}.{name}", code="missing_required_parameter")
    if item.type == "function_call":
        arguments_in(str(item.arguments), f"{param}.arguments")
        call = ToolCallBody(
            id=str(item.call_id), function=FunctionCall(name=str(item.name), arguments=str(item.arguments))
        )
        if not messages or messages[-1].role != "assistant":
            messages.append(Message(role="assistant"))
        messages[-1].tool_calls = [*(messages[-1].tool_calls or []), call]
    elif item.type == "function_call_output":
        messages.append(Message(role="tool", content=_text(item.output), tool_call_id=item.call_id))
    else:
        messages.append(Message(role=str(item.role), content=_text(item.content)))


def _text(content: str | list[InputPart] | None) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content or ())


class _Responses:
    """One request."""

    def __init__(self, work: ChatWork, body: ResponsesBody) -> None:
        self._work, self._body = work, body
        self._id = f"resp_{work.request.state.request_id}"
        self._items = _Items()
        self._num_thought_tokens = 0
        self._number = 0

    async def events(self) -> AsyncGenerator[dict[str, Any], None]:
        """Yields the events of a stream; the last one has the complete response."""
        work = self._work
        prompt = await work.prompt()
        mask = await work.mask(prompt)
        splitter = work.splitter(prompt)
        async with aclosing(work.generate(prompt, mask)) as chunks:
            chunk = await anext(chunks)
            for name in ("created", "in_progress"):
                yield self._numbered({"type": f"response.{name}", "response": self._response("in_progress", None)})
            while True:
                for event in self._items.take(splitter.push(chunk.text)):
                    yield self._numbered(event)
                self._num_thought_tokens += self._items.kind == "reasoning"
                if chunk.output is not None:
                    break
                chunk = await anext(chunks)
        for event in [*self._items.take(splitter.finish()), *self._items.close()]:
            yield self._numbered(event)
        status = "incomplete" if chunk.finish_reason == "length" else "completed"
        yield self._numbered({"type": f"response.{status}", "response": self._response(status, chunk.output)})

    def _numbered(self, event: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        return {**event, "sequence_number": self._number - 1}

    def _response(self, status: str, output: RequestOutput | None) -> dict[str, Any]:
        body = self._body
        usage = None
        if output is not None:
            tokens = usage_of([output])
            usage = {
                "input_tokens": tokens.prompt_tokens,
                "input_tokens_details": {"cached_tokens": output.num_cached_tokens},
                "output_tokens": tokens.completion_tokens,
                "output_tokens_details": {"reasoning_tokens": self._num_thought_tokens},
                "total_tokens": tokens.total_tokens,
            }
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._work.created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {},
            "model": self._work.model.name,
            "output": [*self._items.done],
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": None,
            "store": False,
            "temperature": self._work.params.effective_temperature,
            "text": {"format": {"type": "text"} if body.text is None else body.text.format or {"type": "text"}},
            "tool_choice": "auto" if body.tool_choice is None else body.tool_choice,
            "tools": body.tools or [],
            "top_p": self._work.params.top_p,
            "truncation": "disabled",
            "usage": usage,
        }


@dataclasses.dataclass
class _Items:
    """The items of an answer, which is a row of thoughts, text and calls.

    Attributes:
        done: Complete items.
        kind: What the item that goes on is, `"reasoning"` or `"message"`; empty without one.
    """

    done: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    kind: str = ""
    _id: str = ""
    _text: str = ""

    def take(self, pieces: Iterable[Piece]) -> Iterator[dict[str, Any]]:
        """Yields the events of pieces of the answer."""
        for piece in pieces:
            if piece.call is not None:
                yield from self.close()
                yield from self._call(piece.call.name, arguments_text(piece.call))
                continue
            kind, text = ("reasoning", piece.reasoning) if piece.reasoning else ("message", piece.content)
            if kind != self.kind:
                yield from self.close()
                yield from self._open(kind)
            self._text += text
            yield {**self._place("delta"), "delta": text, **self._logprobs()}

    def close(self) -> Iterator[dict[str, Any]]:
        """Yields the events that end the thoughts or the text, if there are any."""
        if not self.kind:
            return
        yield {**self._place("done"), "text": self._text, **self._logprobs()}
        place = {"output_index": len(self.done), "item_id": self._id, "content_index": 0}
        yield {"type": "response.content_part.done", **place, "part": self._part()}
        item = self._item("completed", [self._part()])
        yield {"type": "response.output_item.done", "output_index": len(self.done), "item": item}
        self.done.append(item)
        self.kind = ""

    def _open(self, kind: str) -> Iterator[dict[str, Any]]:
        self.kind, self._text = kind, ""
        self._id = f"{'rs' if kind == 'reasoning' else 'msg'}_{uuid.uuid4().hex}"
        item = self._item("in_progress", [])
        yield {"type": "response.output_item.added", "output_index": len(self.done), "item": item}
        place = {"output_index": len(self.done), "item_id": self._id, "content_index": 0}
        yield {"type": "response.content_part.added", **place, "part": self._part()}

    def _place(self, what: str) -> dict[str, Any]:
        kind = "output_text" if self.kind == "message" else "reasoning_text"
        place = {"output_index": len(self.done), "item_id": self._id, "content_index": 0}
        return {"type": f"response.{kind}.{what}", **place}

    def _logprobs(self) -> dict[str, Any]:
        return {"logprobs": []} if self.kind == "message" else {}

    def _part(self) -> dict[str, Any]:
        if self.kind == "reasoning":
            return {"type": "reasoning_text", "text": self._text}
        return {"type": "output_text", "text": self._text, "annotations": [], "logprobs": []}

    def _item(self, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        item: dict[str, Any] = {"id": self._id, "type": self.kind, "status": status, "content": content}
        if self.kind == "reasoning":
            return {**item, "summary": []}
        return {**item, "role": "assistant"}

    def _call(self, name: str, arguments: str) -> Iterator[dict[str, Any]]:
        item = {"id": f"fc_{uuid.uuid4().hex}", "type": "function_call", "call_id": call_id(), "name": name}
        place = {"output_index": len(self.done), "item_id": item["id"]}
        begun = {**item, "arguments": "", "status": "in_progress"}
        ended = {**item, "arguments": arguments, "status": "completed"}
        yield {"type": "response.output_item.added", "output_index": len(self.done), "item": begun}
        yield {"type": "response.function_call_arguments.delta", **place, "delta": arguments}
        yield {"type": "response.function_call_arguments.done", **place, "name": name, "arguments": arguments}
        yield {"type": "response.output_item.done", "output_index": len(self.done), "item": ended}
        self.done.append(ended)
