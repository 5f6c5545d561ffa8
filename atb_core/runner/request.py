# SPDX-License-Identifier: Apache-2.0
"""Requests: made from prompts and sampling parameters, and what has been generated for them."""

from __future__ import annotations

import functools
import random
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypedDict

from atb_core.errors import RequestError, shown
from atb_core.runner.detokenizer import Detokenizer
from atb_core.runner.outputs import CompletionOutput, FinishReason, Logprob, RequestOutput, StreamChunk
from atb_core.runner.prompts import Chat, EncodedPrompt, PromptEncoder
from atb_core.runner.sampling_params import SamplingParams
from atb_core.runner.token_mask import TokenMask, TokenMaskFactory

if TYPE_CHECKING:
    from atb_core.features.adapters import Adapter
    from atb_core.runner.drafting import Drafter

Params = SamplingParams | Sequence[SamplingParams] | None
Chats = Chat | Sequence[Chat]
AdapterIds = str | Sequence[str | None] | None

# A caller that is this many chunks behind is waited for: its requests take part in no step until it has read some.
MAX_UNREAD_CHUNKS = 256


class Extra(TypedDict, total=False):
    """Further arguments of `ModelRunner.generate` and `ModelRunner.chat`."""

    add_generation_prompt: bool
    tools: Sequence[dict[str, Any]] | None
    chat_template_kwargs: Mapping[str, Any] | None
    token_mask: TokenMaskFactory | None
    adapter_ids: AdapterIds


class Signal:
    """Wakes a thread by one call into C: an interrupt can leave a `threading.Event` locked for ever."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[None] = SimpleQueue()

    def set(self) -> None:
        """Wakes the thread that waits, or the next one that does."""
        if self._queue.empty():
            self._queue.put(None)

    def clear(self) -> None:
        """Forgets that it was set."""
        self.wait(0.0)

    def wait(self, seconds: float) -> None:
        """Returns once it was set, or after some seconds."""
        with suppress(Empty):
            self._queue.get(timeout=seconds)


class Call:
    """The requests that one caller made together, and what the engine loop has for that caller.

    Args:
        requests: Not empty, of one runner.
        streams: Keeps chunks for the caller; without, it sees the results alone.
        notify: Called in the thread that runs steps, after each step with new chunks and at the end, once for all
            calls that have the same. By default it sets `awake`, for a caller that waits in a thread.

    Attributes:
        chunks: What the caller has not taken yet.
        num_unfinished: Number of requests that have not ended.
        error: What ended the call early.
        is_submitted: True once the loop has it.
        left: True once the caller wants no more.
    """

    def __init__(self, requests: list[Request], streams: bool, notify: Callable[[], None] | None = None) -> None:
        self.requests = requests
        self.streams = streams
        self.awake = Signal()
        self.notify = notify or self.awake.set
        self.chunks: deque[StreamChunk] = deque()
        self.num_unfinished = len(requests)
        self.error: BaseException | None = None
        self.is_submitted = self.left = False
        for request in requests:
            request.call = self

    @property
    def is_over(self) -> bool:
        """True if nothing will be added to `chunks` any more."""
        return self.num_unfinished == 0 or self.error is not None

    @property
    def is_ready(self) -> bool:
        """True if there is something for the caller: a chunk or the end."""
        return bool(self.chunks) or self.is_over

    @property
    def can_run(self) -> bool:
        """True if its requests may take part in steps."""
        return not (self.is_over or self.left or len(self.chunks) >= MAX_UNREAD_CHUNKS)

    def put(self, chunk: StreamChunk) -> None:
        """Takes what a request generated."""
        if self.streams:
            self.chunks.append(chunk)
        if chunk.finish_reason is not None:
            self.num_unfinished -= 1

    def end(self, error: BaseException | None) -> None:
        """Ends the call early, with an error that its caller gets after the chunks so far."""
        for request in self.requests:
            request.abort()
        if not self.is_over:
            self.error, self.num_unfinished = error, 0
        self.requests = []  # which refer to the call, and may have large adapters


@dataclass(eq=False)
class Request:
    """One completion of a prompt: what has been generated, and the cache blocks that hold it.

    `token_ids` is the prompt followed by the output. The last token is never in the cache yet: it is an input of the
    next step. After a preemption nothing is in the cache, or what others share, and all tokens are computed again.

    Attributes:
        result: Result of the prompt, which the requests for its completions share and fill.
        completion: The part of it that this request fills; its text and tokens are set at the end.
        prompt_index: Place of the prompt in the caller's list.
        max_total: Largest number of tokens, prompt included.
        stop_ids: Tokens that end the text.
        decode_token: Gives the text of one token for log probabilities; `None` without a tokenizer.
        token_mask: Restricts the tokens; `None`: all are allowed.
        adapter: What the model runs with, in the version that was loaded when the request came; `None`: nothing.
        call: The call that it belongs to.
        arrival: Order in which requests came, set by the scheduler.
        drafter: Guesses its next tokens; set by the scheduler.
        block_table: Set by the scheduler through the block manager.
        num_computed: Number of its first tokens that the cache has.
        block_keys: Keys of its first full blocks, as far as they were needed.
        seen: Ids in prompt and output, for the repetition penalty; `None` without one.
        counts: How often each id is in the output, for presence and frequency penalty; `None` without these.
        processes_logits: True if anything but temperature and filters changes this request's logits.
        wants_prompt_logprobs: True until the log probabilities of the prompt have been computed, if requested.
    """

    result: RequestOutput
    prompt_index: int
    params: SamplingParams
    max_total: int
    stop_ids: frozenset[int]
    detokenizer: Detokenizer | None = None
    decode_token: Callable[[int], str] | None = None
    token_mask: TokenMask | None = None
    adapter: Adapter | None = None

    def __post_init__(self) -> None:
        params, prompt = self.params, self.result.prompt_token_ids
        self.completion = CompletionOutput(len(self.result.outputs), "", [])
        self.result.outputs.append(self.completion)
        self.token_ids = list(prompt)
        self.call: Call
        self.drafter: Drafter | None = None
        self.block_table: list[int] = []
        self.arrival = -1
        self.num_computed = 0
        self.block_keys: list[bytes] = []
        self.min_total = len(prompt) + params.min_tokens
        if params.logprobs is not None:
            self.completion.logprobs, self.completion.cumulative_logprob = [], 0.0
        self.seen = set(prompt) if params.repetition_penalty != 1.0 else None
        self.counts: dict[int, int] | None = {} if params.presence_penalty or params.frequency_penalty else None
        penalties = self.seen is not None or self.counts is not None
        processed = params.logit_bias is not None or params.min_tokens > 0 or self.token_mask is not None
        self.processes_logits = penalties or processed
        self.wants_prompt_logprobs = params.prompt_logprobs is not None and self.completion.index == 0
        self.rng: random.Random | None = None
        if not params.greedy:
            # Python documents this generator's stream as stable across versions, and it costs 0.1 us a number.
            self.rng = random.Random(None if params.seed is None else params.seed + self.completion.index)
        self._added = time.monotonic()

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def is_paused(self) -> bool:
        """True while its caller does not read."""
        return len(self.call.chunks) >= MAX_UNREAD_CHUNKS

    @property
    def is_decoding(self) -> bool:
        """True if the cache has all of its tokens but the newest."""
        return 0 < self.num_computed == len(self.token_ids) - 1

    def will_add_token_after(self, count: int) -> bool:
        """Returns True if a step of its next `count` tokens gives it another one."""
        return self.num_computed + count == len(self.token_ids)

    def note_draft(self, num_drafted: int, num_accepted: int) -> None:
        """Notes how many guessed tokens a step had, and how many of them were kept."""
        metrics = self.result.metrics
        metrics.num_draft_tokens += num_drafted
        metrics.num_accepted_tokens += num_accepted
        if self.drafter is not None:
            self.drafter.note(num_drafted, num_accepted)

    def mark_cached(self, num_tokens: int) -> None:
        """Notes how many of its first tokens the cache had when it was admitted."""
        self.num_computed = num_tokens
        if self.completion.index == 0 and len(self.token_ids) == len(self.result.prompt_token_ids):
            self.result.num_cached_tokens = num_tokens

    def mark_started(self) -> None:
        """Notes the time of the prompt's first step; later calls change nothing."""
        metrics = self.result.metrics
        metrics.queue_time = metrics.queue_time or time.monotonic() - self._added

    def append(self, token_id: int, logprobs: dict[int, Logprob] | None) -> str:
        """Adds a generated token and decides whether it is the last.

        Returns:
            The text that became final with it.
        """
        if self.token_mask is not None:
            self.token_mask.accept(token_id)
        completion, metrics = self.completion, self.result.metrics
        metrics.time_to_first_token = metrics.time_to_first_token or time.monotonic() - self._added
        self.token_ids.append(token_id)
        if self.seen is not None:
            self.seen.add(token_id)
        if self.counts is not None:
            self.counts[token_id] = self.counts.get(token_id, 0) + 1
        if logprobs is not None and completion.logprobs is not None and completion.cumulative_logprob is not None:
            completion.logprobs.append(logprobs)
            completion.cumulative_logprob += logprobs[token_id].logprob
        if token_id in self.stop_ids:
            completion.stop_reason = token_id
            return self._finish("stop")
        text = ""
        if self.detokenizer is not None:
            text = self.detokenizer.push(token_id, may_stop=len(self.token_ids) > self.min_total)
            if self.detokenizer.stopped_by is not None:
                return text + self._finish("stop")
        if len(self.token_ids) >= self.max_total:
            return text + self._finish("length")
        return text

    def with_text(self, logprobs: dict[int, Logprob]) -> dict[int, Logprob]:
        """Returns log probabilities with the texts of their tokens."""
        decode = self.decode_token
        if decode is None:
            return logprobs
        return {token_id: entry._replace(decoded_token=decode(token_id)) for token_id, entry in logprobs.items()}

    def abort(self) -> None:
        """Ends the request before it is finished."""
        if self.completion.finish_reason is None:
            self._finish("abort")

    def _finish(self, reason: FinishReason) -> str:
        result, completion, rest = self.result, self.completion, ""
        if self.detokenizer is not None:
            rest = self.detokenizer.finish()
            completion.text = self.detokenizer.text
            if self.detokenizer.stopped_by is not None and completion.stop_reason is None:
                reason, completion.stop_reason = "stop", self.detokenizer.stopped_by
        completion.token_ids = self.token_ids[len(result.prompt_token_ids) :]
        completion.finish_reason = reason
        result.metrics.total_time = time.monotonic() - self._added
        result.metrics.decode_time = result.metrics.total_time - result.metrics.time_to_first_token
        result.finished = all(one.finish_reason is not None for one in result.outputs)
        return rest


class RequestFactory:
    """Makes the requests of one call and checks them against the model."""

    def __init__(self, encoder: PromptEncoder, eos_token_ids: frozenset[int]) -> None:
        self._encoder = encoder
        self._tokenizer = encoder.tokenizer
        # A tokenizer may know an end token beyond the model's vocabulary, which can never be chosen.
        self._eos_token_ids = frozenset(token_id for token_id in eos_token_ids if token_id < encoder.vocab_size)

    def make(
        self,
        request_id: str,
        prompt_index: int,
        prompt: EncodedPrompt,
        params: SamplingParams,
        adapter: Adapter | None,
        token_mask: TokenMaskFactory | None,
    ) -> list[Request]:
        """Makes the requests for all completions of one prompt.

        Raises:
            RequestError: A parameter cannot be served.
        """
        text, token_ids = prompt
        if token_mask is not None and not callable(token_mask):
            raise RequestError(f"token_mask must be a function that returns a TokenMask, not {token_mask!r:.100}")
        limit = self._encoder.max_model_len
        if params.max_tokens is not None:
            limit = min(limit, len(token_ids) + params.max_tokens)
        if params.min_tokens > limit - len(token_ids):
            text = (
                f"min_tokens={shown(params.min_tokens)} do not fit into the context of {limit} tokens behind the prompt"
            )
            raise RequestError(text, hint="Shorten the prompt, or lower min_tokens.")
        stop_ids = self._stop_ids(params)
        self._check_ids("logit_bias", params.logit_bias or ())
        if params.stop and self._tokenizer is None:
            raise RequestError(
                "Stop strings need a tokenizer, and this runner was opened without one",
                hint="Use stop_token_ids, or open the model with load_tokenizer=True.",
            )
        result = RequestOutput(request_id, text, token_ids, [], finished=False)
        requests = []
        for _ in range(params.n):
            mask = None if token_mask is None else token_mask()
            request = Request(result, prompt_index, params, limit, stop_ids, token_mask=mask, adapter=adapter)
            if self._tokenizer is not None:
                decoder = self._tokenizer.text_decoder(token_ids, params.skip_special_tokens)
                request.detokenizer = Detokenizer(decoder, tuple(params.stop or ()))
                request.decode_token = self._decode_token
            requests.append(request)
        return requests

    def _stop_ids(self, params: SamplingParams) -> frozenset[int]:
        given = frozenset(params.stop_token_ids or ())
        self._check_ids("stop_token_ids", given)
        stop_ids = given if params.ignore_eos else given | self._eos_token_ids
        if params.min_tokens and len(stop_ids) >= self._encoder.vocab_size:
            raise RequestError("min_tokens leaves no token to choose: every token ends the text")
        return stop_ids

    def _check_ids(self, name: str, token_ids: Collection[int]) -> None:
        largest = max(token_ids, default=0)
        if largest >= self._encoder.vocab_size:
            raise RequestError(
                f"{name} has the token id {largest}; the model has ids from 0 to {self._encoder.vocab_size - 1}",
                hint="Encode the text with the tokenizer that belongs to this model.",
            )

    @functools.cached_property
    def _decode_token(self) -> Callable[[int], str]:
        tokenizer = self._tokenizer
        assert tokenizer is not None
        before = tokenizer.encode("a", add_special_tokens=False)[-1:]

        def text_of(token_id: int) -> str:
            # As it is within a text: some tokenizers drop the space of the first word.
            decoder = tokenizer.text_decoder(before, False)
            return decoder.push(token_id) + decoder.finish()

        return functools.cache(text_of)


def adapters_for_each(given: AdapterIds, find: Callable[[Any], Adapter | None], count: int) -> Sequence[Adapter | None]:
    """Returns the adapters of each of `count` prompts; RequestError if one is unknown, or for another number."""
    if given is not None and not isinstance(given, (str, list, tuple)):
        raise RequestError(f"adapter_ids must be a list with a name or None for each prompt, not {given!r:.100}")
    return [find(name) for name in _for_each("adapter_ids", given, count)]


def params_for_each(given: Any, default: SamplingParams, count: int) -> Sequence[SamplingParams]:
    """Returns the parameters of each of `count` prompts; RequestError if they are of another type or number."""
    params = _for_each("sampling_params", default if given is None else given, count)
    if not all(isinstance(item, SamplingParams) for item in params):
        raise RequestError(
            f"sampling_params must be SamplingParams or a list of them, not {type(given).__name__}",
            hint="For example SamplingParams(temperature=0.7, max_tokens=100).",
        )
    return params


def _for_each(name: str, given: Any, count: int) -> list[Any]:
    if not isinstance(given, (list, tuple)):
        return [given] * count
    if len(given) != count:
        raise RequestError(f"{name} has {len(given)} entries for {count} prompts")
    return list(given)
