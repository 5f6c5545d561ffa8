# SPDX-License-Identifier: Apache-2.0
"""`/v1/completions`: texts and token ids are continued."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from msgspec import UnsetType
from starlette.requests import Request
from starlette.responses import Response

from atb_serve.answers import is_text_alone
from atb_serve.engine import ServedModel, outputs
from atb_serve.errors import ApiError
from atb_serve.http import read_body, reply
from atb_serve.parameters import check_at_most, prompts_in, text_params
from atb_serve.replies import DONE, TextChoice, TextCompletion, TextEvents, TextLogprobs, Usage, event
from atb_serve.schemas import CompletionBody
from atb_serve.state import ServerState, StreamUsage, usage_of
from atb_serve.structured import GrammarMask, grammar_of

if TYPE_CHECKING:
    from atb_core import CompletionOutput, RequestOutput, SamplingParams, StreamChunk
    from atb_core.runner.outputs import Logprob
    from atb_core.runner.prompts import EncodedPrompt


async def completions(request: Request) -> Response:
    """Answers a request, whole or as a stream."""
    state = ServerState.of(request)
    body = await read_body(request, CompletionBody, state.limits)
    model = state.model(request, body.model)
    work = _Completions(state, model, body, request)
    return await reply(request, work, bool(body.stream), state.limits.idle_timeout)


class _Completions:
    """One request for completions."""

    def __init__(self, state: ServerState, model: ServedModel, body: CompletionBody, request: Request) -> None:
        self.state, self.model, self.body, self.request = state, model, body, request
        self.params: SamplingParams = text_params(body, model.default_params, state.limits)
        self.id = f"cmpl-{request.state.request_id}"
        self.created = int(time.time())
        # The one token that core generates at least is not in the answer.
        self.only_echo = body.max_tokens == 0

    async def whole(self) -> TextCompletion:
        """Returns the complete answer."""
        prompts = await self._prompts()
        mask = await self._mask()
        results = await outputs(self.state.generate(self.request, self.model, prompts, self.params, mask))
        choices: list[TextChoice] = []
        for number, (result, prompt) in enumerate(zip(results, prompts, strict=True)):
            first = number * self.params.n
            choices += [self._choice(result, each, prompt, first + each.index) for each in result.outputs]
        return self._reply(choices, self._usage(results))

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Yields the answer as events."""
        prompts = await self._prompts()
        mask = await self._mask()
        results: list[RequestOutput] = []
        usage = StreamUsage(self.body.stream_options, prompts)
        offsets: dict[int, int] = {}
        texts: dict[int, TextEvents] = {}
        started = False
        try:
            work = self.state.generate(self.request, self.model, prompts, self.params, mask)
            async with aclosing(work) as chunks:
                async for chunk in chunks:
                    index = chunk.prompt_index * self.params.n + chunk.index
                    if chunk.output is not None:
                        results.append(chunk.output)
                    if self.body.echo and index not in offsets:
                        text = self._prompt_text(prompts[chunk.prompt_index])
                        offsets[index] = len(text)
                        started = True
                        yield event(self._reply([TextChoice(index, text)], usage.now()))
                    so_far = usage.after_token()
                    if not usage.is_continuous and not self.only_echo and is_text_alone(chunk):
                        if index not in texts:
                            texts[index] = self._text_events(index, so_far)
                        started = True
                        yield texts[index](chunk.text)
                        continue
                    choice = self._piece(chunk, index, offsets)
                    if choice.text or choice.logprobs or choice.finish_reason:
                        started = True
                        yield event(self._reply([choice], so_far))
        except Exception as error:
            if not started:
                raise
            yield event(self.state.failed(self.request, error, "prompt").body())
            return
        if usage.is_wanted:
            yield event(self._reply([], self._usage(results)))
        yield DONE

    async def _prompts(self) -> list[EncodedPrompt]:
        many = prompts_in(self.body.prompt, "prompt")
        check_at_most("prompt", len(many), self.state.limits.max_prompts, " prompts")
        if self.body.echo and self.body.stream and self.body.logprobs is not None:
            raise ApiError("'echo' with 'logprobs' cannot be streamed", param="echo", code="unsupported_parameter")
        return [await self.model.encode(prompt, "prompt") for prompt in many]

    async def _mask(self) -> Callable[[], GrammarMask] | None:
        if (grammar := grammar_of(self.body)) is None:
            return None
        text, param = grammar
        return await self.model.compile_grammar(text, param)

    def _reply(self, choices: list[TextChoice], usage: Usage | UnsetType | None) -> TextCompletion:
        return TextCompletion(self.id, self.created, self.model.name, choices, usage=usage)

    def _text_events(self, index: int, usage: Usage | UnsetType | None) -> TextEvents:
        return TextEvents(lambda text: self._reply([TextChoice(index, text)], usage))

    def _usage(self, results: list[RequestOutput]) -> Usage:
        usage = usage_of(results)
        if self.only_echo:
            usage.completion_tokens, usage.total_tokens = 0, usage.prompt_tokens
        return usage

    def _prompt_text(self, prompt: EncodedPrompt) -> str:
        if prompt.text is not None:
            return prompt.text
        return self.model.tokenizer.decode(prompt.token_ids, skip_special_tokens=False)

    def _choice(
        self, result: RequestOutput, completion: CompletionOutput, prompt: EncodedPrompt, index: int
    ) -> TextChoice:
        steps: list[Any] = []
        text = "" if self.only_echo else completion.text
        if self.body.echo:
            text = self._prompt_text(prompt) + text
            steps += zip(prompt.token_ids, result.prompt_logprobs or (), strict=False)
        if completion.logprobs is not None and not self.only_echo:
            steps += zip(completion.token_ids, completion.logprobs, strict=True)
        logprobs = None if self.body.logprobs is None else self._logprobs(steps, 0)
        reason = "length" if self.only_echo else completion.finish_reason
        return TextChoice(index, text, logprobs, reason, completion.stop_reason)

    def _piece(self, chunk: StreamChunk, index: int, offsets: dict[int, int]) -> TextChoice:
        if self.only_echo:
            return TextChoice(index, "", None, chunk.finish_reason and "length")
        start = offsets.get(index, 0)
        offsets[index] = start + len(chunk.text)
        logprobs = None
        if chunk.logprobs is not None:
            logprobs = self._logprobs([(chunk.token_id, chunk.logprobs)], start)
        return TextChoice(index, chunk.text, logprobs, chunk.finish_reason)

    def _logprobs(self, steps: Sequence[tuple[int, dict[int, Logprob] | None]], offset: int) -> TextLogprobs:
        """Returns OpenAI's form of the log probabilities of tokens, of which the first begins at `offset`."""
        found = TextLogprobs([], [], [], [])
        for token_id, step in steps:
            if step is None:  # the first token of a prompt, which nothing precedes
                token = self.model.tokenizer.decode([token_id], skip_special_tokens=False)
                found.token_logprobs.append(None)
                found.top_logprobs.append(None)
            else:
                token = step[token_id].decoded_token or ""
                found.token_logprobs.append(step[token_id].logprob)
                found.top_logprobs.append(_by_text(step))
            found.tokens.append(token)
            found.text_offset.append(offset)
            offset += len(token)
        return found


def _by_text(step: dict[int, Logprob]) -> dict[str, float]:
    """Returns log probabilities by text; of tokens with the same text, that of the most probable."""
    texts: dict[str, float] = {}
    for entry in step.values():
        text = entry.decoded_token or ""
        texts[text] = max(entry.logprob, texts.get(text, entry.logprob))
    return texts
