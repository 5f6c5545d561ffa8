# SPDX-License-Identifier: Apache-2.0
"""Requests from prompts and sampling parameters, checked against a model."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from atb_core.errors import RequestError
from atb_core.runner.detokenizer import Detokenizer
from atb_core.runner.prompts import EncodedPrompt, PromptEncoder
from atb_core.runner.request import Request, RequestGroup
from atb_core.runner.sampling_params import SamplingParams
from atb_core.runner.tokenizer import Tokenizer

__all__ = ["RequestFactory", "params_for_each"]


class RequestFactory:
    """Makes the requests of one call.

    Args:
        encoder: Turns prompts into token ids.
        tokenizer: `None` if the model was opened without one.
        vocab_size: Token ids are below it.
        max_model_len: Length of the longest context.
        eos_token_ids: Tokens that end a text.
    """

    def __init__(
        self,
        encoder: PromptEncoder,
        tokenizer: Tokenizer | None,
        *,
        vocab_size: int,
        max_model_len: int,
        eos_token_ids: frozenset[int],
    ) -> None:
        self._encoder = encoder
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._max_model_len = max_model_len
        self._eos_token_ids = eos_token_ids
        self._indices = itertools.count()

    def make(self, request_id: str, prompt_index: int, prompt: Any, params: SamplingParams) -> RequestGroup:
        """Makes the requests for all completions of one prompt.

        Raises:
            RequestError: The prompt or a parameter cannot be served.
        """
        encoded = self._encoder.encode(prompt, f"Prompt {prompt_index}")
        limit = self._max_model_len
        if params.max_tokens is not None:
            limit = min(limit, len(encoded.token_ids) + params.max_tokens)
        stop_ids = self._stop_ids(params)
        self._check_ids("logit_bias", params.logit_bias or ())
        if params.stop and self._tokenizer is None:
            raise RequestError(
                "Stop strings need a tokenizer, and this runner was opened without one",
                hint="Use stop_token_ids, or open the model with load_tokenizer=True.",
            )
        group = RequestGroup(request_id, prompt_index, encoded.text, encoded.token_ids)
        for number in range(params.n):
            Request(
                group,
                next(self._indices),
                number,
                params,
                limit,
                stop_ids,
                self._detokenizer(encoded, params),
                self._decode_token if self._tokenizer is not None else None,
            )
        return group

    def _stop_ids(self, params: SamplingParams) -> frozenset[int]:
        given = frozenset(params.stop_token_ids or ())
        self._check_ids("stop_token_ids", given)
        # A tokenizer may know an end token beyond the model's vocabulary, which can never be chosen.
        own = frozenset(token for token in self._eos_token_ids if token < self._vocab_size)
        stop_ids = given if params.ignore_eos else given | own
        if params.min_tokens and len(stop_ids) >= self._vocab_size:
            raise RequestError("min_tokens leaves no token to choose: every token ends the text")
        return stop_ids

    def _check_ids(self, name: str, token_ids: Any) -> None:
        largest = max(token_ids, default=0)
        if largest >= self._vocab_size:
            raise RequestError(
                f"{name} has the token id {largest}; the model has ids from 0 to {self._vocab_size - 1}",
                hint="Encode the text with the tokenizer that belongs to this model.",
            )

    def _detokenizer(self, encoded: EncodedPrompt, params: SamplingParams) -> Detokenizer | None:
        if self._tokenizer is None:
            return None
        decoder = self._tokenizer.text_decoder(encoded.token_ids, params.skip_special_tokens)
        return Detokenizer(decoder, tuple(params.stop or ()))

    @functools.cached_property
    def _decode_token(self) -> Callable[[int], str]:
        tokenizer = self._tokenizer
        assert tokenizer is not None
        return functools.cache(lambda token_id: tokenizer.decode([token_id], skip_special_tokens=False))


def params_for_each(given: Any, default: SamplingParams, count: int) -> Sequence[SamplingParams]:
    """Returns the parameters of each of `count` prompts.

    Args:
        given: For all prompts, or a list with one for each; `None`: the default.
        default: Parameters that are used where none are given.
        count: Number of prompts.

    Raises:
        RequestError: They are of another type, or there are more or fewer than prompts.
    """
    if given is None or isinstance(given, SamplingParams):
        return [given or default] * count
    if not isinstance(given, (list, tuple)) or not all(isinstance(item, SamplingParams) for item in given):
        raise RequestError(
            f"sampling_params must be SamplingParams or a list of them, not {type(given).__name__}",
            hint="For example SamplingParams(temperature=0.7, max_tokens=100).",
        )
    if len(given) != count:
        raise RequestError(f"sampling_params has {len(given)} entries for {count} prompts")
    return list(given)
