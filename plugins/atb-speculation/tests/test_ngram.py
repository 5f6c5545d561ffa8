# SPDX-License-Identifier: Apache-2.0
"""Tokens are guessed from a request's own text, as many as pay."""

from __future__ import annotations

from typing import Any

import pytest

from atb_core.errors import RequestError
from atb_speculation.ngram import NgramConfig, NgramDrafter, configure

CONFIG = NgramConfig()


def draft(tokens: list[int], limit: int = 8, cost: float = 0.0) -> list[int]:
    return NgramDrafter(CONFIG).draft(tokens, limit, cost)


def test_a_guess_is_what_followed_the_newest_tokens_before() -> None:
    assert draft([1, 2, 3, 7, 8, 9, 5, 1, 2, 3], 4) == [7, 8, 9, 5]
    assert draft([1, 2, 3, 7, 8, 9, 5, 1, 2, 3], 2) == [7, 8]
    assert draft([1, 2, 3, 7, 8, 9, 5, 4, 2, 3]) == [], "two tokens are too few"
    assert draft([1, 2]) == []
    assert draft([1, 2, 3, 7, 8, 9, 5, 1, 2, 3], 0) == []


def test_the_longest_match_is_preferred_then_the_newest() -> None:
    assert draft([5, 1, 2, 3, 7, 6, 1, 2, 3, 8, 5, 1, 2, 3], 1) == [7]
    assert draft([4, 1, 2, 3, 7, 6, 1, 2, 3, 8, 5, 1, 2, 3], 1) == [8]


def test_a_text_that_repeats_itself_goes_on() -> None:
    assert draft([1, 2, 1, 2, 1, 2, 1, 2]) == [1, 2, 1, 2, 1, 2, 1, 2]


def test_a_text_may_grow_between_guesses() -> None:
    drafter, text = NgramDrafter(CONFIG), [1, 2, 3, 4]
    assert drafter.draft(text, 8, 0.0) == []
    text += [1, 2, 3]
    assert drafter.draft(text, 1, 0.0) == [4]


def test_guesses_that_prove_wrong_are_left_out_but_for_a_few() -> None:
    drafter, text = NgramDrafter(CONFIG), [1, 2, 3, 7, 8, 9, 5, 1, 2, 3]
    for _ in range(40):
        drafter.note(8, 0)
    drafts = [drafter.draft(text, 8, 0.2) for _ in range(64)]
    assert sum(map(bool, drafts)) == 2
    assert all(len(each) <= 2 for each in drafts)
    for _ in range(20):
        drafter.note(8, 8)
    assert len(drafter.draft(text, 8, 0.0)) == 8, "and made again when they prove right"


def test_costly_guesses_are_fewer() -> None:
    drafter, text = NgramDrafter(CONFIG), [1, 2, 3, 7, 8, 9, 5, 1, 2, 3]
    sizes = [len(drafter.draft(text, 8, cost)) for cost in (0.01, 0.1, 0.3, 0.6)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1] == 0


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"model": "x"}, "model"),
        ({"num_speculative_tokens": 0}, "num_speculative_tokens"),
        ({"num_speculative_tokens": "8"}, "num_speculative_tokens"),
        ({"num_speculative_tokens": True}, "num_speculative_tokens"),
        ({"prompt_lookup_min": 9}, "prompt_lookup_max"),
    ],
)
def test_a_faulty_configuration_is_named(given: dict[str, Any], named: str) -> None:
    with pytest.raises(RequestError, match=named):
        configure(given)
