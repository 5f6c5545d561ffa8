# SPDX-License-Identifier: Apache-2.0
"""Measures what further tokens in a step cost, for chunks of prompts beside requests that decode, and for guesses."""

from __future__ import annotations

# The tokens of prompts may add about this share to a step without prompts. The aim for the longest gap between two
# tokens is 3 normal ones, and the measured cost is an average: with 1.0 gaps reached 3.7 beside a prompt of 8,000
# tokens (SmolLM2-135M), with 0.5 they reached 3.1 to 3.4, and the prompt took no longer.
_SHARE_OF_PROMPTS = 0.5
# Until both kinds of steps were measured. A processor computes this many tokens in the time of one or two decode steps,
# an accelerator in less.
_FIRST_GUESS = 64
# Behind thousands of tokens the attention of one token takes a quarter of a small model's decode step: with 16, steps
# were 3 to 5 times as long, and the prompt was done no sooner.
_SMALLEST = 4
# Of one guessed token, relative to a decode step, until it was measured.
_FIRST_DRAFT_COST = 0.1
_WEIGHT_OF_NEWEST = 0.2


class Pace:
    """Measures steps. The sizes depend on time, the tokens that come out do not depend on the sizes."""

    def __init__(self) -> None:
        self._decode_seconds: float | None = None
        self._seconds_per_token: float | None = None
        self._draft_cost: float | None = None

    def note(self, num_decoding: int, num_prompt_tokens: int, num_draft_tokens: int, seconds: float) -> None:
        """Takes the duration of a step, by the number of requests that brought their newest token, and of others."""
        if num_draft_tokens:
            if self._decode_seconds is not None:
                rest = max(0.0, seconds - self._decode_seconds)
                self._draft_cost = _average(self._draft_cost, rest / num_draft_tokens / self._decode_seconds)
        elif not num_prompt_tokens:
            self._decode_seconds = _average(self._decode_seconds, seconds)
        elif not num_decoding:
            self._seconds_per_token = _average(self._seconds_per_token, seconds / num_prompt_tokens)
        elif self._decode_seconds is not None:
            rest = max(0.0, seconds - self._decode_seconds)
            self._seconds_per_token = _average(self._seconds_per_token, rest / num_prompt_tokens)

    @property
    def chunk_size(self) -> int:
        """Number of prompt tokens that keep a step short."""
        if self._decode_seconds is None or not self._seconds_per_token:
            return _FIRST_GUESS
        return max(_SMALLEST, int(_SHARE_OF_PROMPTS * self._decode_seconds / self._seconds_per_token))

    @property
    def draft_cost(self) -> float:
        """Time of one guessed token in a step, relative to a step in which requests bring their newest tokens."""
        return _FIRST_DRAFT_COST if self._draft_cost is None else self._draft_cost


def _average(before: float | None, newest: float) -> float:
    return newest if before is None else before + _WEIGHT_OF_NEWEST * (newest - before)
