# SPDX-License-Identifier: Apache-2.0
"""Parameters of one request: how tokens are chosen, when to stop, what to report."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from atb_core.errors import RequestError, shown
from atb_core.names import nearest

# Enough for an answer of a page, and few enough that a small model caught in a loop ends within a minute. It is the
# default of Python and of the command line alike.
DEFAULT_MAX_TOKENS = 512
# Holding back text for a stop string costs work per token, and each completion takes part in every step. These bounds
# keep a single request from making that large.
MAX_STOP_STRINGS = 64
MAX_STOP_LENGTH = 1024
MAX_COMPLETIONS = 128
# More than any vocabulary has.
MAX_TOKEN_IDS = 1 << 20
_SMALLEST_TEMPERATURE = 1e-5

# Smallest and largest value of each parameter that is a number.
_FLOATS = {
    "temperature": (0.0, 1e38), "top_p": (0.0, 1.0), "min_p": (0.0, 1.0),
    "repetition_penalty": (0.001, 1000.0), "presence_penalty": (-2.0, 2.0), "frequency_penalty": (-2.0, 2.0),
}  # fmt: skip
_INTEGERS = {
    "n": (1, MAX_COMPLETIONS), "top_k": (-1, math.inf), "seed": (-1, 2**64 - 1), "max_tokens": (1, math.inf),
    "min_tokens": (0, math.inf), "logprobs": (0, math.inf), "prompt_logprobs": (0, math.inf),
}  # fmt: skip
#: Parameters by their names in other libraries.
OTHER_NAMES = {
    "max_new_tokens": "max_tokens", "max_completion_tokens": "max_tokens", "min_new_tokens": "min_tokens",
    "stop_strings": "stop", "eos_token_id": "stop_token_ids", "num_return_sequences": "n",
}  # fmt: skip
_MAY_BE_NONE = ("temperature", "seed", "max_tokens", "logprobs", "prompt_logprobs")


@dataclass(frozen=True)
class SamplingParams:
    """Parameters of one request. Immutable, so one object may serve many requests.

    The defaults are greedy, as in Hugging Face's `generate`: the same prompt gives the same tokens. Asking for any
    sampling option (`top_p`, `top_k`, `min_p`, `seed` or `n`) without a temperature samples at 1.0, as in vLLM. An
    explicit `temperature=0` is always greedy: no filter ever removes the most probable token.

    Logits are processed in the order of Hugging Face's `generate`: `logit_bias`, `min_tokens`, `repetition_penalty`,
    `frequency_penalty`, `presence_penalty`, `temperature`, `top_k`, `top_p`, `min_p`.

    Args:
        n: Number of completions of the prompt, 1 to 128. More than one need sampling; completion `i` of a request
            with a seed gets the tokens that a single one gets with `seed + i`.
        presence_penalty: Subtracted from the logits of tokens in the output so far, in [-2, 2].
        frequency_penalty: Subtracted from the logits once for each time that the token is in the output so far, in
            [-2, 2].
        repetition_penalty: Divides positive logits and multiplies negative ones of tokens in the prompt or in the
            output so far, in [0.001, 1000].
        temperature: Divides the logits. 0 (or less than 1e-5, by which float32 cannot divide) is greedy. `None`: 1.0
            if a sampling option is given, else 0.
        top_p: Keeps the smallest set of most probable tokens whose probability reaches this, in (0, 1].
        top_k: Keeps this many most probable tokens (and those equal to the last of them); 0 or -1: all.
        min_p: Drops tokens less probable than this times the most probable one, in [0, 1].
        seed: Makes sampling repeatable, whatever else is in the batch, in [0, 2**64). `None` takes the system's
            randomness; so does -1, as in vLLM.
        stop: A string or several; the text ends before the first of them to be completed.
        stop_token_ids: Further tokens that end the text. They are in `token_ids` but not in `text`.
        ignore_eos: Goes on after the model's end tokens.
        max_tokens: Largest number of tokens to generate; `None`: until the context is full.
        min_tokens: Smallest number of tokens to generate: until then end tokens and `stop_token_ids` cannot be
            chosen, and stop strings are not looked for.
        logprobs: Number of most probable tokens to report at each step besides the chosen one, or `None`. Log
            probabilities are of the model's own distribution, before any processing.
        prompt_logprobs: The same for each position of the prompt. All its logits are computed for it, in parts of
            bounded size; a long prompt runs once for each part.
        skip_special_tokens: Leaves special tokens out of the text.
        logit_bias: By token id, what is added to the logit, in [-100, 100].

    Raises:
        RequestError: A value is of the wrong type or out of range; the message names it.
    """

    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float | None = None
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: str | Iterable[str] | None = ()
    stop_token_ids: Iterable[int] | None = ()
    ignore_eos: bool = False
    max_tokens: int | None = DEFAULT_MAX_TOKENS
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    skip_special_tokens: bool = True
    logit_bias: Mapping[int, float] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        for name, limits in {**_FLOATS, **_INTEGERS}.items():
            value = getattr(self, name)
            if value is not None or name not in _MAY_BE_NONE:
                check = _checked_float if name in _FLOATS else _checked_integer
                self._set(name, check(name, value, *limits))
        if self.seed == -1:
            self._set("temperature", self.effective_temperature)
            self._set("seed", None)
        for name in ("ignore_eos", "skip_special_tokens"):
            if not isinstance(getattr(self, name), bool):
                raise RequestError(f"{name} must be True or False, not {shown(getattr(self, name))}")
        self._set("stop", _stop_strings(self.stop))
        self._set("stop_token_ids", _token_ids(self.stop_token_ids))
        self._set("logit_bias", _logit_bias(self.logit_bias))
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise RequestError(f"min_tokens={shown(self.min_tokens)} is more than max_tokens={shown(self.max_tokens)}")
        if self.n > 1 and self.greedy:
            raise RequestError(
                f"n={self.n}: greedy decoding gives the same completion each time",
                hint="Give a temperature above 0, or leave n out.",
            )

    @property
    def effective_temperature(self) -> float:
        """Temperature that is used: the given one, or the documented default."""
        if self.temperature is not None:
            return self.temperature
        filters = self.top_p < 1.0 or self.top_k > 0 or self.min_p > 0.0
        return 1.0 if filters or self.seed is not None or self.n > 1 else 0.0

    @property
    def greedy(self) -> bool:
        """True if the most probable token is always taken."""
        return self.effective_temperature < _SMALLEST_TEMPERATURE

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


_generated_init = SamplingParams.__init__


@functools.wraps(_generated_init)
def _init(self: SamplingParams, *args: Any, **values: Any) -> None:
    for name in values.keys() - SamplingParams.__dataclass_fields__.keys():
        hint = nearest(name, SamplingParams.__dataclass_fields__, "help(SamplingParams) lists all.")
        hint = f"It is called {OTHER_NAMES[name]}." if name in OTHER_NAMES else hint
        raise RequestError(f"SamplingParams has no parameter {name!r:.100}", hint=hint)
    _generated_init(self, *args, **values)


SamplingParams.__init__ = _init  # type: ignore[method-assign]


def as_int(value: object) -> int | None:
    """Returns the integer that a value is, as an `int`; `None` for other types and for booleans."""
    if type(value) is int:
        return value
    try:
        return None if _is_bool(value) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def _is_bool(value: object) -> bool:
    """Returns True also for numpy's and torch's booleans."""
    return isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool")


def _checked_integer(name: str, value: object, low: float, high: float) -> int:
    number = as_int(value)
    if number is None:
        raise RequestError(f"{name} must be an integer, not {shown(value)}")
    if number < low:
        raise RequestError(f"{name} must be at least {low}, not {shown(number)}")
    if number > high:
        raise RequestError(f"{name} must be at most {high}, not {shown(number)}")
    return number


def _checked_float(name: str, value: object, low: float, high: float) -> float:
    try:
        if _is_bool(value) or isinstance(value, (str, bytes, bytearray)):
            raise TypeError
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise RequestError(f"{name} must be a number, not {shown(value)}") from None
    # No token would be left by a top_p of 0.
    above_low = number > low if name == "top_p" else number >= low
    if not above_low or number > high or not math.isfinite(number):
        opening = "(" if name == "top_p" else "["
        closing = "infinity)" if high == math.inf else f"{high:g}]"
        raise RequestError(f"{name} must be in {opening}{low:g}, {closing}, not {shown(value)}")
    return number


def _stop_strings(stop: object) -> tuple[str, ...]:
    if stop is None:
        return ()
    strings = (stop,) if isinstance(stop, str) else _first_items(stop, MAX_STOP_STRINGS)
    if strings is None or not all(isinstance(item, str) for item in strings):
        raise RequestError(f"stop must be a string or a list of strings, not {shown(stop)}")
    if len(strings) > MAX_STOP_STRINGS:
        raise RequestError(f"stop has more than {MAX_STOP_STRINGS} strings, which is the limit")
    for item in strings:
        if not item:
            raise RequestError("A stop string is empty", hint="Leave it out, or pass stop=None.")
        if len(item) > MAX_STOP_LENGTH:
            raise RequestError(f"A stop string has {len(item)} characters; at most {MAX_STOP_LENGTH} are allowed")
    return strings


def _token_ids(ids: object) -> tuple[int, ...]:
    if ids is None:
        return ()
    items = _first_items(ids, MAX_TOKEN_IDS)
    numbers = [None] if items is None else [*map(as_int, items)]
    if any(number is None or number < 0 for number in numbers):
        raise RequestError(f"stop_token_ids must be a list of token ids, not {shown(ids)}")
    if len(numbers) > MAX_TOKEN_IDS:
        raise RequestError(f"stop_token_ids has more than {MAX_TOKEN_IDS} token ids, which is the limit")
    return tuple(number for number in numbers if number is not None)


def _first_items(values: object, limit: int) -> tuple[Any, ...] | None:
    """Returns the items of an iterable, of a longer one `limit` + 1; `None` for what is no iterable."""
    try:
        return tuple(itertools.islice(values, limit + 1))  # type: ignore[call-overload]
    except TypeError:
        return None


def _logit_bias(bias: object) -> dict[int, float] | None:
    if bias is None:
        return None
    if not isinstance(bias, Mapping):
        raise RequestError(f"logit_bias must be a dict from token ids to numbers, not {shown(bias)}")
    if len(bias) > MAX_TOKEN_IDS:
        raise RequestError(f"logit_bias has more than {MAX_TOKEN_IDS} token ids, which is the limit")
    checked: dict[int, float] = {}
    for key, value in bias.items():
        token_id = as_int(key)
        if token_id is None or token_id < 0:
            raise RequestError(f"logit_bias has the key {shown(key)}, which is not a token id")
        checked[token_id] = _checked_float(f"logit_bias[{token_id}]", value, -100.0, 100.0)
    return checked or None
