# SPDX-License-Identifier: Apache-2.0
"""What a caller may ask of one request: how tokens are chosen, when to stop, what to report."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from atb_core.errors import RequestError

__all__ = ["SamplingParams"]

# Holding back text for a stop string costs work per token; these bounds keep a request from making that
# large.
MAX_STOP_STRINGS = 64
MAX_STOP_LENGTH = 1024
_SMALLEST_TEMPERATURE = 1e-5


@dataclass(frozen=True)
class SamplingParams:
    """Parameters of one request. Immutable, so one object may serve many requests.

    The defaults are greedy, as in Hugging Face's ``generate``: the same prompt gives the same tokens. Asking
    for any sampling option (``top_p``, ``top_k``, ``min_p`` or ``seed``) without naming a temperature
    samples at 1.0, as in vLLM. An explicit ``temperature=0`` is always greedy: no filter ever removes the
    most probable token.

    The order of the steps is Hugging Face's: repetition penalty, temperature, top-k, top-p, min-p.

    Args:
        temperature: divides the logits; 0 (or less than 1e-5, which float32 cannot divide by with sense) is
            greedy. ``None``: 1.0 if a sampling option is given, else 0.
        top_p: keep the smallest set of most probable tokens whose probability reaches this, in (0, 1].
        top_k: keep this many most probable tokens (and those equal to the last of them); 0 or -1: all.
        min_p: drop tokens less probable than this times the most probable one, in [0, 1].
        repetition_penalty: in [0.001, 1000]; tokens of the prompt and the output so far have positive logits
            divided and negative ones multiplied by it.
        seed: makes sampling repeatable, whatever else is in the batch; ``None`` takes the system's
            randomness.
        max_tokens: most tokens to generate; ``None``: until the context is full.
        stop: a string or several; the text ends before the first of them to be completed.
        ignore_eos: go on after an end-of-sequence token.
        logprobs: ``None``, or how many of the most probable tokens to report at each step besides the chosen
            one. Logprobs are of the model's own distribution, before penalty, temperature and filters.
        stop_token_ids: further tokens that end the text; they are reported in ``token_ids`` but not in
            ``text``.

    Raises:
        RequestError: a value is of the wrong type or out of range; the message names it.
    """

    temperature: float | None = None
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    max_tokens: int | None = 256
    stop: str | Iterable[str] | None = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    stop_token_ids: Iterable[int] | None = ()

    def __post_init__(self) -> None:
        if self.temperature is not None:
            self._number("temperature", low=0.0)
        self._number("top_p", low=0.0, high=1.0, low_is_allowed=False)
        self._number("min_p", low=0.0, high=1.0)
        self._number("repetition_penalty", low=0.001, high=1000.0)
        self._integer("top_k", low=-1)
        if self.seed is not None:
            self._integer("seed")
        if self.max_tokens is not None:
            self._integer("max_tokens", low=1)
        if self.logprobs is not None:
            self._integer("logprobs", low=0)
        if not isinstance(self.ignore_eos, bool):
            raise RequestError(f"ignore_eos must be True or False, not {self.ignore_eos!r}")
        self._set("stop", _stop_strings(self.stop))
        self._set("stop_token_ids", _token_ids(self.stop_token_ids))

    @property
    def effective_temperature(self) -> float:
        """The temperature that is used: the given one, or the documented default."""
        if self.temperature is not None:
            return self.temperature
        asks_for_sampling = self.top_p < 1.0 or self.top_k > 0 or self.min_p > 0.0 or self.seed is not None
        return 1.0 if asks_for_sampling else 0.0

    @property
    def greedy(self) -> bool:
        """True if the most probable token is always taken."""
        return self.effective_temperature < _SMALLEST_TEMPERATURE

    @classmethod
    def from_generation_config(cls, generation_config: Mapping[str, Any], **overrides: Any) -> SamplingParams:
        """The defaults that a checkpoint's ``generation_config.json`` recommends, with ``overrides`` on top.

        With ``do_sample`` false or absent the checkpoint recommends greedy decoding and its sampling values
        are not taken over. An override of ``None`` counts as not given.
        """
        values: dict[str, Any] = {}
        names = ["repetition_penalty"]
        if generation_config.get("do_sample"):
            names += ["temperature", "top_k", "top_p", "min_p"]
            # Hugging Face samples at 1.0 when the file does not say.
            values["temperature"] = 1.0
        for name in names:
            if generation_config.get(name) is not None:
                values[name] = generation_config[name]
        if generation_config.get("max_new_tokens") is not None:
            values["max_tokens"] = generation_config["max_new_tokens"]
        values.update({name: value for name, value in overrides.items() if value is not None})
        return cls(**values)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _number(self, name: str, *, low: float, high: float = math.inf, low_is_allowed: bool = True) -> None:
        value = getattr(self, name)
        try:
            if isinstance(value, (bool, str)):
                raise TypeError
            number = float(value)
        except (TypeError, ValueError):
            raise RequestError(f"{name} must be a number, not {value!r}") from None
        in_range = low <= number <= high and (low_is_allowed or number > low)
        if not in_range or not math.isfinite(number):
            opening = "[" if low_is_allowed else "("
            closing = "infinity)" if high == math.inf else f"{high:g}]"
            raise RequestError(f"{name} must be in {opening}{low:g}, {closing}, not {value!r}")
        self._set(name, number)

    def _integer(self, name: str, low: int | None = None) -> None:
        value = getattr(self, name)
        number = _as_int(value)
        if number is None:
            raise RequestError(f"{name} must be an integer, not {value!r}")
        if low is not None and number < low:
            raise RequestError(f"{name} must be at least {low}, not {number}")
        self._set(name, number)


def _as_int(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def _stop_strings(stop: object) -> tuple[str, ...]:
    if stop is None:
        return ()
    strings = (stop,) if isinstance(stop, str) else tuple(stop) if isinstance(stop, Iterable) else None
    if strings is None or not all(isinstance(item, str) for item in strings):
        raise RequestError(f"stop must be a string or a list of strings, not {stop!r}")
    if len(strings) > MAX_STOP_STRINGS:
        raise RequestError(f"{len(strings)} stop strings were given; at most {MAX_STOP_STRINGS} are allowed")
    for item in strings:
        if not item:
            raise RequestError("A stop string is empty", hint="Leave it out, or pass stop=None.")
        if len(item) > MAX_STOP_LENGTH:
            raise RequestError(f"A stop string has {len(item)} characters; at most {MAX_STOP_LENGTH} are allowed")
    return strings


def _token_ids(ids: object) -> tuple[int, ...]:
    if ids is None:
        return ()
    numbers = [_as_int(item) for item in ids] if isinstance(ids, Iterable) else [None]
    if any(number is None or number < 0 for number in numbers):
        raise RequestError(f"stop_token_ids must be a list of token ids, not {ids!r}")
    return tuple(number for number in numbers if number is not None)
