# SPDX-License-Identifier: Apache-2.0
"""Measures what further tokens in a step cost, for chunks of prompts beside requests that decode, and for guesses."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from statistics import median_low

from atb_core.runner.scheduler import GROWTH, Batch

# The aim for the longest step, in steps without prompts; with a token's way to its reader, a gap is to be 3. A prompt
# may add what is left, and a part at least, when the longest waits for a processor are taken off, a short one in any
# case. Of fewer than many streams less is taken off, of one nothing: it waits for a prompt as this does for it.
_LONGEST_STEP, _SMALLEST_SHARE, _SHORTEST_WAIT, _MANY = 2.6, 0.5, 0.3, 5
# The same with slices, after which nothing is left to guess but the step itself: 2.6 made gaps of up to 3.1, this 2.7.
_LONGEST_SLICED = 2.3
# Until both kinds of steps were measured. A processor computes this many tokens in less than a decode step.
_FIRST_GUESS = 16
# Behind thousands of tokens most of a chunk's time is reading what is before it, so that smaller ones save little.
_SMALLEST = 4
# Seconds for which who comes waits for a chunk that nobody was beside; smaller ones take more than 2 % longer in all.
_LONGEST_ALONE, _SMALLEST_ALONE = 0.5, 256
_FIRST_DRAFT_COST = 0.1  # of one guessed token, relative to a decode step, until it was measured
# A chunk in slices takes so many steps without prompts: a few slices. Its weights are read once, which takes one; its
# longest nodes, which no slice can end in, take a third of one behind thousands of tokens.
_SLICED_STEPS = 6
_FIRST_SLICED = 64
_ROWS = 16  # of a tile of the matrix units; and sizes that come again need no new plans
# Of a slice after a step with prompts, which leave little, and seconds of one that nobody waits for.
_LEAST_SLICE, _SLICE_ALONE = 0.25, 0.02
_STEPS = 15  # of a median, in which one that waited for a processor counts for nothing
_HISTORY = 256  # steps: about as many as a prompt of thousands of tokens takes


class Pace:
    """Measures steps. The sizes depend on time, the tokens that come out do not depend on the sizes."""

    def __init__(self) -> None:
        self._decode: dict[int, deque[float]] = {}  # seconds of steps without prompts, by their number of requests
        # Of steps with prompts: the mean number of tokens before each of theirs, and the seconds of each.
        self._tokens: deque[tuple[float, float]] = deque(maxlen=_HISTORY)
        self._sliced_tokens: deque[tuple[float, float]] = deque(maxlen=_HISTORY)  # the same of chunks in slices
        self._draft_costs: deque[float] = deque(maxlen=_STEPS)
        self._waits: deque[float] = deque([0.0, 0.0], maxlen=_HISTORY)  # beyond what was expected, in decode steps

    def note(self, batch: Batch, seconds: float) -> None:
        """Takes the duration of a step, before its tokens count as computed."""
        prompts, counts = batch.requests[batch.num_decoding :], batch.counts[batch.num_decoding :]
        count, guesses = sum(counts), sum(map(len, batch.drafts.values()))
        decode, further = self._decode_seconds(batch.num_decoding) if batch.num_decoding else (0.0, 0)
        rest, tokens = seconds - (decode or 0.0), count + further
        before = sum(n * (each.num_computed + n / 2) for each, n in zip(prompts, counts, strict=True)) / max(1, count)
        if decode and not guesses and (self._tokens or not tokens):
            self._waits.append((rest - (tokens and tokens * self._token_seconds(before))) / decode)
        # One that is faster than those without prompts and guesses shows what they would take now.
        if not (count or guesses) or (decode and rest <= 0):
            self._decode.setdefault(batch.num_decoding, deque(maxlen=_STEPS)).append(seconds)
        elif guesses and decode:
            self._draft_costs.append(rest / (guesses + further) / decode)
        elif count and decode is not None:
            self._tokens.append((before, rest / tokens))

    def note_sliced(self, batch: Batch, seconds: float) -> None:
        """Takes the duration of all slices of a chunk, before its tokens count as computed."""
        (request,), (count,) = batch.requests, batch.counts
        self._sliced_tokens.append((request.num_computed + count / 2, seconds / count))

    def _token_seconds(self, context: float, measured: Collection[tuple[float, float]] | None = None) -> float:
        """Returns the seconds of a prompt's token, by the steps that had about as many tokens before theirs, or 0."""
        # Behind more tokens than any had, attention takes its part longer.
        tokens = self._tokens if measured is None else measured
        grown = [(abs(n - context), (context + GROWTH) / (n + GROWTH), seconds) for n, seconds in tokens]
        usual = median_low([max(1.0, growth) * seconds for _, growth, seconds in sorted(grown)[:_STEPS]] or [0.0])
        # One slow step says nothing, two in a row that tokens cost more now.
        return max(usual, min((growth * seconds for _, growth, seconds in grown[-2:]), default=0.0))

    def _decode_seconds(self, num_decoding: int) -> tuple[float | None, int]:
        """Returns the seconds of a step of the nearest number of requests without prompts, and how many are further."""
        nearest = min(self._decode, key=lambda number: abs(number - num_decoding), default=None)
        if nearest is None:
            return None, 0
        return median_low(self._decode[nearest]), max(0, num_decoding - nearest)

    def chunk_size(self, num_decoding: int, context: int) -> int:
        """Returns the number of tokens of a prompt, with so many before them, that keep a step short."""
        (decode, further), seconds = self._decode_seconds(num_decoding), self._token_seconds(context)
        if not num_decoding:
            return max(_SMALLEST_ALONE, round(_LONGEST_ALONE / (seconds or 1.0)))
        if not decode or not seconds:
            return _FIRST_GUESS
        # A further request takes about what the first token of a prompt does.
        decode += further * self._token_seconds(0)
        return max(_SMALLEST, round(self._share(num_decoding, _LONGEST_STEP) * decode / seconds))

    def _share(self, num_decoding: int, longest: float) -> float:
        """Returns what prompts may add to a step, as a share of one without, if the longest is to take so many."""
        # The longest wait of all is taken for one of a kind.
        wait = max(_SHORTEST_WAIT, sorted(self._waits)[-2]) * min(1.0, (num_decoding - 1) / (_MANY - 1))
        return max(_SMALLEST_SHARE, longest - 1 - wait)

    def sliced_size(self, num_decoding: int, context: int) -> int:
        """Returns the number of tokens of a chunk in slices, with so many before them."""
        (decode, _), seconds = self._decode_seconds(num_decoding), self._token_seconds(context, self._sliced_tokens)
        return max(1, round(_SLICED_STEPS * decode / seconds / _ROWS)) * _ROWS if decode and seconds else _FIRST_SLICED

    def slice_seconds(self, batch: Batch | None) -> float:
        """Returns the seconds of a slice after a step, or after none."""
        decode = self._decode_seconds(batch.num_decoding)[0] if batch is not None and batch.num_decoding else None
        if batch is None or decode is None:
            return _SLICE_ALONE
        has_prompts = len(batch.requests) > batch.num_decoding
        return decode * (_LEAST_SLICE if has_prompts else self._share(batch.num_decoding, _LONGEST_SLICED))

    @property
    def draft_cost(self) -> float:
        """Time of one guessed token in a step, relative to a step in which requests bring their newest tokens."""
        return median_low(self._draft_costs) if self._draft_costs else _FIRST_DRAFT_COST
