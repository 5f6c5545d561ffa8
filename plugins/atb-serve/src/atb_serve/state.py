# SPDX-License-Identifier: Apache-2.0
"""The state that the routes of one server share."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from msgspec import UNSET, UnsetType
from starlette.requests import Request

from atb_serve.errors import ApiError, api_error
from atb_serve.metrics import ABORTED, Metrics, reasons_of
from atb_serve.replies import CachedTokens, Usage
from atb_serve.settings import Limits

if TYPE_CHECKING:
    from atb_core import EmbeddingOutput, RequestOutput, SamplingParams, StreamChunk
    from atb_core.runner.prompts import EncodedPrompt
    from atb_core.runner.token_mask import TokenMaskFactory
    from atb_serve.engine import ServedModel
    from atb_serve.schemas import StreamOptions


@dataclass(frozen=True)
class ServerState:
    """The models by name, those with adapters too, with the server's limits and counts."""

    models: dict[str, ServedModel]
    limits: Limits
    metrics: Metrics
    has_keys: bool = False
    log_texts: bool = False
    lora_dir: Path | None = None
    #: Adapters are loaded and unloaded one at a time.
    loading: asyncio.Lock = field(default_factory=asyncio.Lock)

    @classmethod
    def of(cls, request: Request) -> ServerState:
        """Returns the state of the server that got a request."""
        return cast(ServerState, request.app.state.server)

    def model(self, request: Request, name: str | None) -> ServedModel:
        """Looks a model up in the table; without a name it is the first one.

        Raises:
            ApiError: There is none of that name.
        """
        model = next(iter(self.models.values())) if name is None else self.models.get(name)
        if model is None:
            raise ApiError(
                f"The model {name!r:.100} does not exist", status=404, param="model", code="model_not_found",
                hint=f"Models are {', '.join(map(repr, self.models))}.",
            )  # fmt: skip
        request.state.facts["model"] = model.name
        return model

    def generate(
        self,
        request: Request,
        model: ServedModel,
        prompts: Sequence[EncodedPrompt],
        params: SamplingParams,
        token_mask: TokenMaskFactory | None,
    ) -> AsyncGenerator[StreamChunk, None]:
        """Completes prompts together, see `ServedModel.generate`; counts each at its end and notes it for the log."""
        request.state.facts.update(prompt_tokens=0, completion_tokens=0, finish_reasons=[])
        on_end = functools.partial(self._ended, request.state.facts, model)
        return model.generate(prompts, params, token_mask=token_mask, on_end=on_end)

    def _ended(self, facts: dict[str, Any], model: ServedModel, output: RequestOutput, generated: int) -> None:
        # What ends after its adapter was unloaded counts for the model itself.
        name = model.name if model.name in self.models else model.base_name or model.name
        begun = generated or output.metrics.queue_time
        prompt = len(output.prompt_token_ids) if begun else 0
        self.metrics.ended(name, output, prompt, generated)
        facts["prompt_tokens"] += prompt
        facts["completion_tokens"] += generated
        facts["finish_reasons"] += reasons_of(output)
        if self.log_texts:
            ids, tokenizer = output.prompt_token_ids, model.runner.tokenizer
            text = ids if tokenizer is None else tokenizer.decode(ids, skip_special_tokens=False)
            facts.setdefault("prompts", []).append(text)
            texts = (each.text if each.finish_reason not in (None, ABORTED) else None for each in output.outputs)
            facts.setdefault("answers", []).extend(texts)
        if generated:
            facts.setdefault("time_to_first_token", round(output.metrics.time_to_first_token, 4))

    def embedded(self, request: Request, model: ServedModel, output: EmbeddingOutput) -> None:
        """Counts a prompt whose vector was computed, and notes it for the log."""
        self.metrics.embedded(model.name, len(output.prompt_token_ids))
        request.state.facts["prompt_tokens"] += len(output.prompt_token_ids)

    def failed(self, request: Request, error: Exception, param: str | None = None) -> ApiError:
        """Returns the answer to an error in a stream that has begun, and notes it for the log: the status is sent."""
        answer = api_error(error, param)
        request.state.facts["error"] = answer.code or answer.kind
        return answer


class StreamUsage:
    """Usage in the events of one stream: `None` in all but the last one, or tokens so far; nothing unless asked for.

    Args:
        options: The request's `stream_options`.
        prompts: Its prompts.

    Attributes:
        is_wanted: The last event has that of the request.
        is_continuous: The others have tokens so far.
    """

    def __init__(self, options: StreamOptions | None, prompts: Sequence[EncodedPrompt]) -> None:
        self.is_wanted = options is not None and bool(options.include_usage)
        self.is_continuous = self.is_wanted and options is not None and bool(options.continuous_usage_stats)
        self._prompt_tokens = sum(len(prompt.token_ids) for prompt in prompts)
        self._generated = 0

    def after_token(self) -> Usage | UnsetType | None:
        """Returns that of the events of one more token."""
        self._generated += 1
        return self.now()

    def now(self) -> Usage | UnsetType | None:
        """Returns that of an event."""
        if not self.is_continuous:
            return None if self.is_wanted else UNSET
        return Usage(self._prompt_tokens, self._generated, self._prompt_tokens + self._generated)


def usage_of(outputs: list[RequestOutput]) -> Usage:
    """Returns the tokens of a request."""
    prompt = sum(len(output.prompt_token_ids) for output in outputs)
    generated = sum(len(each.token_ids) for output in outputs for each in output.outputs)
    cached = sum(output.num_cached_tokens for output in outputs)
    return Usage(prompt, generated, prompt + generated, CachedTokens(cached))
