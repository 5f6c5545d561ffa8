# SPDX-License-Identifier: Apache-2.0
"""The number of prompt tokens in a step follows from how long steps take."""

from __future__ import annotations

import pytest

from atb_core.runner.pace import Pace


def test_a_step_with_prompts_takes_half_as_long_again_as_one_without() -> None:
    pace = Pace()
    assert pace.chunk_size == 64
    pace.note(8, 0, 0, 0.04)
    assert pace.chunk_size == 64
    pace.note(0, 1000, 0, 1.0)
    assert pace.chunk_size == 20
    # Besides others, a prompt took what the step took longer.
    pace.note(8, 50, 0, 0.04 + 0.05)
    assert pace.chunk_size == 20


def test_it_follows_slowly_and_never_becomes_nothing() -> None:
    pace = Pace()
    pace.note(0, 1000, 0, 1.0)
    pace.note(8, 0, 0, 0.04)
    pace.note(8, 0, 0, 0.14)
    assert pace.chunk_size == 30
    pace.note(8, 10, 0, 100.0)
    assert pace.chunk_size == 4
    fast = Pace()
    fast.note(8, 0, 0, 0.04)
    fast.note(8, 10, 0, 0.03)
    assert fast.chunk_size == 64


def test_a_guessed_token_costs_what_a_step_took_longer() -> None:
    pace = Pace()
    assert pace.draft_cost == 0.1
    pace.note(1, 0, 4, 0.06)
    assert pace.draft_cost == 0.1, "nothing to compare with"
    pace.note(1, 0, 0, 0.04)
    pace.note(1, 0, 4, 0.06)
    assert pace.draft_cost == pytest.approx(0.125)
    pace.note(0, 1000, 0, 1.0)
    assert pace.chunk_size == 20, "guesses are no prompts"
