# SPDX-License-Identifier: Apache-2.0
"""`/v1/chat/completions`: conversations are answered."""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from msgspec import UnsetType
from starlette.requests import Request
from starlette.responses import Response

from atb_serve.answers import AnswerSplitter, Piece, arguments_text, is_text_alone
from atb_serve.engine import ServedModel, outputs
from atb_serve.errors import ApiError
from atb_serve.http import read_body, reply
from atb_serve.parameters import chat_params, plain_messages, plain_tools
from atb_serve.replies import (
    DONE,
    CalledFunction,
    CalledTool,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatLogprobs,
    ChatMessage,
    ContentLogprob,
    TextEvents,
    TokenLogprob,
    Usage,
    event,
)
from atb_serve.schemas import ChatBody, ToolChoice
from atb_serve.state import ServerState, StreamUsage, usage_of
from atb_serve.structured import GrammarMask, call_grammar, grammar_of, text_with_calls_grammar

if TYPE_CHECKING:
    from atb_core import CompletionOutput, RequestOutput, StreamChunk
    from atb_core.runner.outputs import Logprob
    from atb_core.runner.prompts import EncodedPrompt


async def chat_completions(request: Request) -> Response:
    """Answers a request, whole or as a stream."""
    state = ServerState.of(request)
    body = await read_body(request, ChatBody, state.limits)
    model = state.model(request, body.model)
    work = ChatWork(state, model, body, request)
    return await reply(request, work, bool(body.stream), state.limits.idle_timeout)


class ChatWork:
    """One request for answers to a conversation."""

    def __init__(self, state: ServerState, model: ServedModel, body: ChatBody, request: Request) -> None:
        self.state, self.model, self.body, self.request = state, model, body, request
        self.params = chat_params(body, model.default_params, state.limits)
        self.tools = plain_tools(body.tools, state.limits)
        # The functions of which one has to be called.
        self._callable: list[dict[str, Any]] = []
        # Those whose arguments follow their schema wherever the model calls them.
        self._strict: set[str] = set()
        self._check_tool_choice()
        if self._reads_tools:
            model.check_tools()
            # Marks of calls are special tokens in some families.
            self.params = dataclasses.replace(self.params, skip_special_tokens=False)
        self.id = f"chatcmpl-{request.state.request_id}"
        self.created = int(time.time())

    def _check_tool_choice(self) -> None:
        choice = self.body.tool_choice
        if choice is None or choice in ("none", "auto"):
            if choice != "none":
                self._strict = {tool.function.name for tool in self.body.tools or () if tool.function.strict}
            if self._strict:
                self._check_no_other_grammar()
            return
        if not self.tools:
            raise ApiError("'tool_choice' needs 'tools'", param="tool_choice")
        if isinstance(choice, ToolChoice):
            name = choice.function.name
            self._callable = [tool["function"] for tool in self.tools if tool["function"]["name"] == name]
            if not self._callable:
                raise ApiError(f"'tool_choice' names {name!r}, which is not in 'tools'", param="tool_choice")
        else:
            self._callable = [tool["function"] for tool in self.tools]
        self._check_no_other_grammar()

    def _check_no_other_grammar(self) -> None:
        if grammar_of(self.body) is not None:
            param = "tool_choice" if self._callable else "tools"
            raise ApiError("An answer is a call or follows another grammar, not both", param=param)

    @property
    def _reads_tools(self) -> bool:
        return self.tools is not None and self.body.tool_choice != "none"

    async def prompt(self) -> EncodedPrompt:
        """Returns the tokens of the conversation."""
        messages = plain_messages(self.body.messages, self.model.knows_developer)
        return await self.model.encode_chat(
            messages,
            tools=None if self.body.tool_choice == "none" else self.tools,
            add_generation_prompt=self.body.add_generation_prompt is not False,
            chat_template_kwargs=self.body.chat_template_kwargs,
        )

    async def mask(self, prompt: EncodedPrompt) -> Callable[[], GrammarMask] | None:
        """Returns what restricts the answer, behind the thoughts that the prompt has opened."""
        if self._callable or self._strict:
            grammar, param = self._grammar_of_calls(), "tools"
        elif (found := grammar_of(self.body)) is not None:
            grammar, param = found
        else:
            return None
        after = "</think>" if self._in_thought(prompt) else None
        return await self.model.compile_grammar(grammar, param, after)

    def _grammar_of_calls(self) -> str:
        call_format, chosen = self.model.runner.tool_parser().call_format, "tool_choice" if self._callable else "tools"
        if call_format is None:
            raise ApiError("This model's tool calls cannot be enforced", param=chosen)
        has_special = self.model.grammars.has_special
        if self._callable:
            return call_grammar(self._callable, call_format, has_special, "tools")
        functions = [tool["function"] for tool in self.tools or ()]
        return text_with_calls_grammar(functions, self._strict, call_format, has_special, "tools")

    def _in_thought(self, prompt: EncodedPrompt) -> bool:
        return self.model.thinks and (prompt.text or "").rstrip().endswith("<think>")

    def splitter(self, prompt: EncodedPrompt) -> AnswerSplitter:
        """Returns what takes one answer apart."""
        return AnswerSplitter(
            thinks=self.model.thinks,
            in_thought=self._in_thought(prompt),
            parser=self.model.runner.tool_parser() if self._reads_tools else None,
            max_calls=1 if self.body.parallel_tool_calls is False else None,
        )

    def generate(
        self, prompt: EncodedPrompt, mask: Callable[[], GrammarMask] | None
    ) -> AsyncGenerator[StreamChunk, None]:
        """Generates the answers."""
        return self.state.generate(self.request, self.model, [prompt], self.params, mask)

    async def whole(self) -> ChatCompletion:
        """Returns the complete answer."""
        prompt = await self.prompt()
        mask = await self.mask(prompt)
        results = await outputs(self.generate(prompt, mask))
        choices = [self._choice(each, prompt) for each in results[0].outputs]
        return ChatCompletion(self.id, self.created, self.model.name, choices, usage_of(results))

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Yields the answer as events."""
        prompt = await self.prompt()
        count = self.params.logprobs
        answers = [_Answer(index, self.splitter(prompt), count) for index in range(self.params.n)]
        mask = await self.mask(prompt)
        usage = StreamUsage(self.body.stream_options, [prompt])
        results: list[RequestOutput] = []
        texts: dict[int, TextEvents] = {}
        started = False
        try:
            async with aclosing(self.generate(prompt, mask)) as chunks:
                async for chunk in chunks:
                    if chunk.output is not None:
                        results.append(chunk.output)
                    so_far, answer = usage.after_token(), answers[chunk.index]
                    if not usage.is_continuous and answer.takes_as_it_is(chunk):
                        if chunk.index not in texts:
                            texts[chunk.index] = self._text_events(chunk.index, so_far)
                        yield texts[chunk.index](chunk.text)
                        continue
                    for choice in answer.choices(chunk):
                        started = True
                        yield event(self._chunk([choice], so_far))
        except Exception as error:
            if not started:
                raise
            yield event(self.state.failed(self.request, error, "messages").body())
            return
        if usage.is_wanted:
            yield event(self._chunk([], usage_of(results)))
        yield DONE

    def _chunk(self, choices: list[ChatChunkChoice], usage: Usage | UnsetType | None) -> ChatChunk:
        return ChatChunk(self.id, self.created, self.model.name, choices, usage=usage)

    def _text_events(self, index: int, usage: Usage | UnsetType | None) -> TextEvents:
        return TextEvents(lambda text: self._chunk([ChatChunkChoice(index, ChatDelta(content=text))], usage))

    def _choice(self, completion: CompletionOutput, prompt: EncodedPrompt) -> ChatChoice:
        splitter = self.splitter(prompt)
        pieces = [*splitter.push(completion.text), *splitter.finish()]
        calls = [piece.call for piece in pieces if piece.call is not None]
        content = "".join(piece.content for piece in pieces)
        message = ChatMessage(content if content or not calls else None)
        if reasoning := "".join(piece.reasoning for piece in pieces):
            message.reasoning_content = reasoning
        if calls:
            message.tool_calls = [
                CalledTool(id=call_id(), type="function", function=CalledFunction(call.name, arguments_text(call)))
                for call in calls
            ]
        logprobs = None
        if completion.logprobs is not None:
            pairs = zip(completion.token_ids, completion.logprobs, strict=True)
            logprobs = ChatLogprobs([_token_logprob(token_id, step, self.params.logprobs) for token_id, step in pairs])
        reason = "tool_calls" if calls and completion.finish_reason == "stop" else completion.finish_reason
        return ChatChoice(completion.index, message, logprobs, reason, completion.stop_reason)


class _Answer:
    """One answer while it is streamed."""

    def __init__(self, index: int, splitter: AnswerSplitter, top_logprobs: int | None) -> None:
        self._index, self._splitter, self._count = index, splitter, top_logprobs
        self._begun = False
        self._num_calls = 0

    def takes_as_it_is(self, chunk: StreamChunk) -> bool:
        """Returns True if a token adds its text to the stream and nothing else."""
        return self._begun and self._splitter.is_open and is_text_alone(chunk)

    def choices(self, chunk: StreamChunk) -> Iterable[ChatChunkChoice]:
        """Returns what a token adds to the stream."""
        deltas = [ChatDelta(role="assistant", content="")] if not self._begun else []
        self._begun = True
        deltas += self._deltas(self._splitter.push(chunk.text))
        if chunk.finish_reason is not None:
            deltas += self._deltas(self._splitter.finish())
        choices = [ChatChunkChoice(self._index, delta) for delta in deltas]
        if chunk.logprobs is not None:
            # Also of a token whose text is held back.
            choices = choices or [ChatChunkChoice(self._index, ChatDelta())]
            choices[-1].logprobs = ChatLogprobs([_token_logprob(chunk.token_id, chunk.logprobs, self._count)])
        if chunk.finish_reason is not None:
            is_call = self._num_calls and chunk.finish_reason == "stop"
            reason = "tool_calls" if is_call else chunk.finish_reason
            choices.append(ChatChunkChoice(self._index, ChatDelta(), None, reason))
        return choices

    def _deltas(self, pieces: Iterable[Piece]) -> Iterable[ChatDelta]:
        for piece in pieces:
            if piece.call is not None:
                function = CalledFunction(piece.call.name, "")
                opening = CalledTool(index=self._num_calls, id=call_id(), type="function", function=function)
                arguments = CalledFunction(arguments=arguments_text(piece.call))
                yield ChatDelta(tool_calls=[opening])
                yield ChatDelta(tool_calls=[CalledTool(index=self._num_calls, function=arguments)])
                self._num_calls += 1
            elif piece.reasoning:
                yield ChatDelta(reasoning_content=piece.reasoning)
            else:
                yield ChatDelta(content=piece.content)


def call_id() -> str:
    """Returns a new id of a tool call."""
    return f"call_{uuid.uuid4().hex[:24]}"


def _token_logprob(token_id: int, step: dict[int, Logprob], count: int | None) -> ContentLogprob:
    """Returns a token with the `count` most probable ones in its place; the chosen one need not be among them."""
    likeliest = sorted(step.values(), key=lambda entry: entry.rank)[: count or 0]
    return ContentLogprob(*_entry(step[token_id]), [TokenLogprob(*_entry(entry)) for entry in likeliest])


def _entry(entry: Logprob) -> tuple[str, float, list[int] | None]:
    text = entry.decoded_token or ""
    return text, entry.logprob, None if "\ufffd" in text else list(text.encode())
