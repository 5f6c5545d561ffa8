# SPDX-License-Identifier: Apache-2.0
"""A served model: prompts become tokens off the event loop, and completions of several prompts one stream."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import functools
import gc
import re
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from atb_core import EmbeddingOutput, ModelRunner, RequestOutput, SamplingParams, StreamChunk
from atb_core.errors import AtbError, RequestError, TokenizerError
from atb_core.runner.chat_template import NO_CHAT
from atb_serve.async_runner import AsyncRunner
from atb_serve.errors import ApiError, api_error
from atb_serve.settings import Limits
from atb_serve.structured import GrammarMask, Grammars
from atb_serve.turnover import Turnover

if TYPE_CHECKING:
    from atb_core.runner.prompts import EncodedPrompt
    from atb_core.runner.tokenizer import Tokenizer

T = TypeVar("T")
# Texts are encoded by one thread for each model: a tokenizer is quick, and chat templates share one process.
_ENCODING_THREADS = 1
_WARM_UP_TOKENS = 24
# In place of core's, for who asks over HTTP.
_NO_CHAT = "/v1/completions continues a text without a template."


class ServedModel:
    """A model under the name that requests give.

    Args:
        name: Name in requests.
        runner: The open model.
        limits: Limits of the server.
    """

    def __init__(self, name: str, runner: ModelRunner, limits: Limits) -> None:
        self.name, self.runner, self.limits = name, runner, limits
        #: The adapter with which requests run; `None`: the model itself.
        self.adapter_id: str | None = None
        self.base_name: str | None = None
        self.created = int(time.time())
        self.engine = AsyncRunner(runner, max_queue_len=limits.max_queue_len)
        self.default_params = runner.get_default_sampling_params()
        templates = [] if runner.tokenizer is None else runner.tokenizer.chat_templates.values()
        self.knows_developer = any("developer" in source for source in templates)
        self.thinks = runner.tokenizer is not None and runner.tokenizer.thinks
        self.grammars = Grammars(runner)
        self._encoding = ThreadPoolExecutor(_ENCODING_THREADS, thread_name_prefix="atb-encode")
        # Prompts need not wait for grammars that take seconds to be refused.
        self._compiling = ThreadPoolExecutor(1, thread_name_prefix="atb-grammar")
        # They take turns at the model anyway.
        self._embedding = ThreadPoolExecutor(1, thread_name_prefix="atb-embed")
        self._num_embedding = 0
        self._embedding_turnover = Turnover()

    def with_adapter(self, name: str) -> ServedModel:
        """Returns the same model, on the same engine, whose requests run with an adapter."""
        adapted = copy.copy(self)
        adapted.name, adapted.adapter_id, adapted.base_name = name, name, self.name
        adapted.created = int(time.time())
        return adapted

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer.

        Raises:
            ApiError: It was opened without one.
        """
        if self.runner.tokenizer is None:
            raise ApiError("This model has no tokenizer; prompts are token ids", param="prompt")
        return self.runner.tokenizer

    async def encode(self, prompt: Any, param: str, **for_template: Any) -> EncodedPrompt:
        """Returns the tokens of a prompt, in another thread.

        Raises:
            ApiError: The prompt or a variable of the template is refused.
        """
        return await self.run_encoding(lambda: self.runner.encode(prompt, **for_template), param)

    async def encode_chat(self, messages: list[dict[str, Any]], **for_template: Any) -> EncodedPrompt:
        """Returns the tokens of a conversation; see `encode`."""
        return await self.run_encoding(lambda: self.runner.encode(messages, **for_template), "messages")

    def check_tools(self) -> None:
        """Raises ApiError if nothing installed reads the tool calls of this model."""
        try:
            self.runner.tool_parser()
        except RequestError as error:
            raise api_error(error, "tools") from None

    async def compile_grammar(self, grammar: str, param: str, after: str | None = None) -> Callable[[], GrammarMask]:
        """Returns what makes the mask of each completion, from a thread for grammars alone; see `Grammars.compile`."""
        return await self.run_encoding(lambda: self.grammars.compile(grammar, param, after), param, self._compiling)

    async def run_encoding(self, function: Callable[[], T], param: str, threads: ThreadPoolExecutor | None = None) -> T:
        """Runs what takes time with texts in another thread; an error of the request names `param`."""
        try:
            with self.engine.arriving():
                return await asyncio.get_running_loop().run_in_executor(threads or self._encoding, function)
        except (RequestError, TokenizerError) as error:
            found = _param_in(error, param)
            if found == "tools":
                raise ApiError(
                    "This model takes no tools: its chat template does not show it any", param=found,
                    hint="Leave 'tools' out; a client that adds tools of its own has to do so too.",
                ) from None  # fmt: skip
            if NO_CHAT in (error.hint or ""):
                raise ApiError(error.message, param=found, hint=_NO_CHAT) from None
            raise api_error(error, found) from None

    def generate(
        self, prompts: Sequence[EncodedPrompt], params: SamplingParams, **options: Any
    ) -> AsyncGenerator[StreamChunk, None]:
        """Completes prompts together; each chunk says by `prompt_index` whose it is.

        Leaving the generator ends the requests.

        Raises:
            ApiError: They are too many.
        """
        if len(prompts) * params.n > self.limits.max_queue_len:
            raise ApiError(
                f"{len(prompts)} prompts with n={params.n} are {len(prompts) * params.n} completions; this server "
                f"queues {self.limits.max_queue_len}",
                param="prompt",
            )
        streams = [
            self.engine.generate(
                {"prompt_token_ids": prompt.token_ids},
                params,
                timeout=self.limits.request_timeout,
                adapter_id=self.adapter_id,
                **options,
            )
            for prompt in prompts
        ]
        chunks = streams[0] if len(streams) == 1 else _merged(streams)
        return chunks if self.adapter_id is None else self._of_adapter(chunks)

    async def _of_adapter(self, chunks: AsyncGenerator[StreamChunk, None]) -> AsyncGenerator[StreamChunk, None]:
        """Yields chunks; says so if the adapter was unloaded after the request had named it."""
        async with aclosing(chunks):
            try:
                async for chunk in chunks:
                    yield chunk
            except RequestError:
                if self.adapter_id in self.runner.adapters:
                    raise
                raise ApiError(
                    f"The model {self.name!r:.100} does not exist any more", status=404, param="model",
                    code="model_not_found",
                ) from None  # fmt: skip

    async def embed(self, prompts: Sequence[Any], dimensions: int | None) -> AsyncGenerator[EmbeddingOutput, None]:
        """Embeds prompts, one after another in a thread; leaving it ends it after the one that is computed."""
        if self._num_embedding >= self.limits.max_queue_len:
            raise self._embedding_turnover.full(self._num_embedding, "requests for embeddings")
        self._num_embedding += 1
        self._embedding_turnover.begin()
        try:
            for prompt in prompts:
                embed = functools.partial(self.runner.embed, prompt, dimensions=dimensions)
                for output in await asyncio.get_running_loop().run_in_executor(self._embedding, embed):
                    yield output
        finally:
            self._num_embedding -= 1
            self._embedding_turnover.end()

    async def close(self, drain: float | None = None) -> None:
        """Ends all requests, after `drain` seconds, and closes the model."""
        await self.engine.close(drain=drain)
        self.grammars.close()
        for threads in (self._encoding, self._compiling, self._embedding):
            threads.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self.runner.close)


def warm_up(runner: ModelRunner) -> None:
    """Runs steps of each kind, so that no request waits for what is built once, and their times are known.

    While a streamed request decodes, a second one makes mixed steps.
    """
    length = min(_WARM_UP_TOKENS, runner.max_model_len // 2)
    for adapter in (None, *runner.adapters[:1]) if length > 1 else ():
        params = SamplingParams(max_tokens=length, ignore_eos=True)
        stream = runner.generate([[0]], params, stream=True, adapter_ids=adapter)
        for _ in range(length // 2):
            next(stream)
        runner.generate([[0] * length], SamplingParams(max_tokens=1), adapter_ids=adapter)
        for _ in stream:
            pass


@contextmanager
def settled_heap() -> Iterator[None]:
    """Excludes what exists now from the garbage collector: a look at all modules takes as long as several steps."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


async def _merged(streams: Sequence[AsyncGenerator[StreamChunk, None]]) -> AsyncGenerator[StreamChunk, None]:
    """Yields the chunks of several streams as they come; the first error ends all of them."""
    # One place for each stream: a reader that is slow stops the others' chunks from piling up here.
    queue: asyncio.Queue[StreamChunk | BaseException | None] = asyncio.Queue(len(streams))

    async def read(index: int, stream: AsyncGenerator[StreamChunk, None]) -> None:
        try:
            async with aclosing(stream):
                async for chunk in stream:
                    await queue.put(dataclasses.replace(chunk, prompt_index=index))
        except Exception as error:
            await queue.put(error)
        else:
            await queue.put(None)

    tasks = [asyncio.create_task(read(index, stream)) for index, stream in enumerate(streams)]
    try:
        running = len(tasks)
        while running:
            item = await queue.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                running -= 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def outputs(chunks: AsyncGenerator[StreamChunk, None]) -> list[RequestOutput]:
    """Reads a stream to its end and returns the results of its prompts in their order."""
    found: dict[int, RequestOutput] = {}
    async with aclosing(chunks):
        async for chunk in chunks:
            if chunk.output is not None:
                found[chunk.prompt_index] = chunk.output
    return [found[index] for index in sorted(found)]


def _param_in(error: AtbError, param: str) -> str:
    """Returns the parameter that core's message about a prompt is about, which is `param` or a part of it."""
    if param == "messages" and (message := re.search(r"The prompt, message (\d+)", error.message)):
        return f"messages[{message[1]}]"
    of_template = re.search(r"\A(?:The chat|The model's chat template knows no) variable '(\w*)", error.message)
    if of_template is None:
        return param
    return "tools" if of_template[1] == "tools" else "chat_template_kwargs"
