# SPDX-License-Identifier: Apache-2.0
"""Speculation without a second model: a request's next tokens are guessed from its own text (prompt lookup).

The model checks the guesses in one step, each with the context that it would have had. What is chosen from its logits
is kept, so the tokens are those of a run without guesses: greedy ones, and sampled ones too, since each is drawn from
the same logits with the same random number. Source of the method: Saxena, "Prompt Lookup Decoding" (2023).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from atb_core.errors import RequestError

# A draft is made if it is expected to be at least this much faster than going token by token.
_SMALLEST_GAIN = 1.05
# How much one guess says about those to come, and what is assumed of the first.
_WEIGHT_OF_NEWEST = 0.1
_FIRST_ACCEPTANCE = 0.5
# While drafts do not pay, one of this many that could be made is tried with this many tokens: texts change.
_PROBE_INTERVAL = 32
_PROBE_TOKENS = 2
# Earlier places with the same beginning that are compared.
_MAX_PLACES = 8
_MAX_SPECULATIVE_TOKENS = 64


@dataclass(frozen=True)
class NgramConfig:
    """Says how tokens are guessed, by vLLM's names: as they followed the last time that the newest tokens occurred.

    Args:
        num_speculative_tokens: Largest number of tokens guessed at a time, 1 to 64.
        prompt_lookup_min: Number of newest tokens that must have occurred before.
        prompt_lookup_max: Number of them up to which a longer match is preferred.

    Raises:
        RequestError: A value is out of range.
    """

    num_speculative_tokens: int = 8
    prompt_lookup_min: int = 3
    prompt_lookup_max: int = 8

    def __post_init__(self) -> None:
        for name in ("num_speculative_tokens", "prompt_lookup_min", "prompt_lookup_max"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= _MAX_SPECULATIVE_TOKENS:
                raise RequestError(f"{name} must be an integer from 1 to {_MAX_SPECULATIVE_TOKENS}, not {value!r:.100}")
        if self.prompt_lookup_max < self.prompt_lookup_min:
            raise RequestError(
                f"prompt_lookup_max={self.prompt_lookup_max} is less than prompt_lookup_min={self.prompt_lookup_min}"
            )


def configure(entries: Mapping[str, Any]) -> Callable[[], NgramDrafter]:
    """Returns what makes the drafter of a request; RequestError for an entry that there is not."""
    names = [field.name for field in fields(NgramConfig)]
    for name in entries:
        if name not in names:
            hint = f"It has method, {', '.join(names)}."
            raise RequestError(f"speculative_config has no entry {name!r:.100}", hint=hint)
    return partial(NgramDrafter, NgramConfig(**entries))


class NgramDrafter:
    """Guesses the next tokens of one request, as many as are likely to pay."""

    def __init__(self, config: NgramConfig) -> None:
        self._config = config
        self._places = _Places(config.prompt_lookup_min, config.prompt_lookup_max)
        self._acceptance = _FIRST_ACCEPTANCE
        self._num_left_out = 0

    def draft(self, token_ids: Sequence[int], limit: int, cost: float) -> list[int]:
        """Returns guesses of the tokens that follow, none if that is unlikely to pay.

        Args:
            token_ids: All tokens of the request; those of earlier calls are their beginning.
            limit: Largest number of tokens.
            cost: Time of one more token in a step, relative to a step without guesses.
        """
        limit = min(limit, self._config.num_speculative_tokens)
        place = self._places.find(token_ids)
        if place is None or limit < 1:
            return []
        count = self._best_count(limit, cost)
        if not count:
            self._num_left_out += 1
            if self._num_left_out % _PROBE_INTERVAL:
                return []
            count = min(limit, _PROBE_TOKENS)
        # A text that repeats itself goes on into what is guessed here.
        draft: list[int] = []
        for at in range(place, place + count):
            draft.append(token_ids[at] if at < len(token_ids) else draft[at - len(token_ids)])
        return draft

    def note(self, num_drafted: int, num_accepted: int) -> None:
        """Takes how many of the guesses were right; those after the first wrong one say nothing."""
        for number in range(min(num_drafted, num_accepted + 1)):
            self._acceptance += _WEIGHT_OF_NEWEST * ((number < num_accepted) - self._acceptance)

    def _best_count(self, limit: int, cost: float) -> int:
        """Returns the number of tokens with the largest gain in tokens for a time, 0 if it is too small.

        Powers of two, and the limit: an engine keeps a plan for each number of tokens.
        """
        best, largest, expected, chance = 0, _SMALLEST_GAIN, 1.0, 1.0
        for count in range(1, limit + 1):
            chance *= self._acceptance
            expected += chance
            gain = expected / (1.0 + cost * count)
            if gain > largest and (count & (count - 1) == 0 or count == limit):
                best, largest = count, gain
        return best


class _Places:
    """The places of a growing text at which a run of tokens occurred, by chains from each to the one before."""

    def __init__(self, smallest: int, largest: int) -> None:
        self._smallest = smallest
        self._largest = largest
        self._newest: dict[tuple[int, ...], int] = {}
        # For each place of the text, the one before it with the same tokens in front; -1: none.
        self._before: list[int] = [-1] * smallest

    def find(self, token_ids: Sequence[int]) -> int | None:
        """Returns the place after the longest earlier run of the newest tokens, of equal ones the newest."""
        size, end = self._smallest, len(token_ids)
        for place in range(len(self._before), end):
            run = tuple(token_ids[place - size : place])
            self._before.append(self._newest.get(run, -1))
            self._newest[run] = place
        place = self._newest.get(tuple(token_ids[-size:]), -1)
        best, longest = None, 0
        for _ in range(_MAX_PLACES):
            if place < 0:
                break
            length = self._match(token_ids, place, end)
            if length > longest:
                best, longest = place, length
            place = self._before[place]
        return best

    def _match(self, token_ids: Sequence[int], place: int, end: int) -> int:
        length = self._smallest
        while length < min(self._largest, place) and token_ids[place - length - 1] == token_ids[end - length - 1]:
            length += 1
        return length
