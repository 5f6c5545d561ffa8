# SPDX-License-Identifier: Apache-2.0
"""Measures what further tokens in a step cost, for chunks of prompts beside requests that decode, and for guesses."""

from __future__ import annotations

from collections import deque
from statistics import median_low

from atb_core.runner.scheduler import GROWTH, Batch

# A prompt may add about this share to a step without prompts. The aim for the longest gap between two tokens is 3
# normal ones; what is left is for steps that wait for a processor.
_SHARE_OF_PROMPT = 1.3
# Until both kinds of steps were measured. A processor computes this many tokens in less than a decode step.
_FIRST_GUESS = 16
# Behind thousands of tokens most of a chunk's time is reading what is before it, so that smaller ones save little.
_SMALLEST = 4
_FIRST_DRAFT_COST = 0.1  # of one guessed token, relative to a decode step, until it was measured
# Steps of a median, in which one that waited for a processor counts for nothing.
_STEPS = 15


class Pace:
    """Measures steps. The sizes depend on time, the tokens that come out do not depend on the sizes."""

    def __init__(self) -> None:
        # Seconds of steps without prompts, by the number of requests in them.
        self._decode: dict[int, deque[float]] = {}
        # Of steps with prompts: the mean number of tokens before each of theirs, and the seconds of each.
        self._tokens: deque[tuple[float, float]] = deque(maxlen=256)
        self._draft_costs: deque[float] = deque(maxlen=_STEPS)

    def note(self, batch: Batch, seconds: float) -> None:
        """Takes the duration of a step, before its tokens count as computed."""
        prompts, counts = batch.requests[batch.num_decoding :], batch.counts[batch.num_decoding :]
        count, guesses = sum(counts), sum(map(len, batch.drafts.values()))
        knows = batch.num_decoding and (count or guesses)
        decode, further = self._decode_seconds(batch.num_decoding) if knows else (0.0, 0)
        rest = seconds - (decode or 0.0)
        # One that is faster than those without prompts and guesses shows what they would take now.
        if not (count or guesses) or (decode and rest <= 0):
            self._decode.setdefault(batch.num_decoding, deque(maxlen=_STEPS)).append(seconds)
        elif guesses and decode:
            self._draft_costs.append(rest / (guesses + further) / decode)
        elif count and decode is not None:
            before = sum(n * (each.num_computed + n / 2) for each, n in zip(prompts, counts, strict=True))
            self._tokens.append((before / count, rest / (count + further)))

    def _token_seconds(self, context: int) -> float:
        """Returns the seconds of a prompt's token, by the steps that had about as many tokens before theirs."""
        if not self._tokens:
            return 0.0
        # Behind more tokens than any had, attention takes its part longer.
        grown = [(abs(n - context), (context + GROWTH) / (n + GROWTH), seconds) for n, seconds in self._tokens]
        usual = median_low([max(1.0, growth) * seconds for _, growth, seconds in sorted(grown)[:_STEPS]])
        # One slow step says nothing, two in a row that tokens cost more now.
        return max(usual, min(growth * seconds for _, growth, seconds in grown[-2:]))

    def _decode_seconds(self, num_decoding: int) -> tuple[float | None, int]:
        """Returns the seconds of a step of the nearest number of requests without prompts, and how many are further."""
        nearest = min(self._decode, key=lambda number: abs(number - num_decoding), default=None)
        if nearest is None:
            return None, 0
        return median_low(self._decode[nearest]), max(0, num_decoding - nearest)

    def chunk_size(self, num_decoding: int, context: int) -> int:
        """Returns the number of tokens of a prompt, with so many before them, that keep a step short."""
        (decode, further), seconds = self._decode_seconds(num_decoding), self._token_seconds(context)
        if not decode or not seconds:
            return _FIRST_GUESS
        # A further request takes about what the first token of a prompt does.
        decode += further * self._token_seconds(0)
        return max(_SMALLEST, round(_SHARE_OF_PROMPT * decode / seconds))

    @property
    def draft_cost(self) -> float:
        """Time of one guessed token in a step, relative to a step in which requests bring their newest tokens."""
        return median_low(self._draft_costs) if self._draft_costs else _FIRST_DRAFT_COST
