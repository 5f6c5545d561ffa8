# SPDX-License-Identifier: Apache-2.0
"""The number of prompt tokens in a step follows from how long steps take."""

from __future__ import annotations

import pytest

from atb_core.runner.outputs import RequestOutput
from atb_core.runner.pace import Pace
from atb_core.runner.request import Request
from atb_core.runner.sampling_params import SamplingParams
from atb_core.runner.scheduler import Batch


def request(num_computed: int = 0) -> Request:
    one = Request(RequestOutput("0", None, [1], [], finished=False), 0, SamplingParams(), 9999, frozenset())
    one.num_computed = num_computed
    return one


def step(num_decoding: int, num_prompt_tokens: int = 0, num_guesses: int = 0, context: int = 0) -> Batch:
    decoding, prompts = [request() for _ in range(num_decoding)], [request(context)] if num_prompt_tokens else []
    counts = [1] * num_decoding + [num_prompt_tokens] * len(prompts)
    drafts = {decoding[0]: [7] * num_guesses} if num_guesses else {}
    return Batch("mixed", decoding + prompts, counts, num_decoding, drafts)


def test_a_prompt_without_others_beside_it_is_taken_in_chunks_of_half_a_second() -> None:
    pace = Pace()
    assert pace.chunk_size(0, 0) == 256
    for seconds, tokens in ((1.0, 500), (0.1, 5000), (9.0, 256)):
        for _ in range(20):
            pace.note(step(0, 1000), seconds)
        assert pace.chunk_size(0, 0) == tokens


def test_a_prompt_adds_a_good_deal_more_than_a_step_without_takes() -> None:
    pace = Pace()
    assert pace.chunk_size(8, 0) == 16
    pace.note(step(8), 0.04)
    assert pace.chunk_size(8, 0) == 16
    pace.note(step(0, 1000), 1.0)
    assert pace.chunk_size(8, 0) == 52
    # Beside others, a prompt took what the step took longer.
    pace.note(step(8, 50), 0.04 + 0.05)
    assert pace.chunk_size(8, 0) == 52


@pytest.mark.parametrize(
    ("token", "reading", "both"),  # shares of a step without prompts: each token, 1,000 before it, both
    [(0.04, 0.1, 0.008), (0.04, 0.05, 0.02), (0.1, 0.0, 0.001), (0.17, 0.01, 0.002), (0.02, 0.05, 0.02)],
)
def test_steps_take_the_same_time_whatever_tokens_and_contexts_cost(token: float, reading: float, both: float) -> None:
    pace, shares, context = Pace(), [], 0
    pace.note(step(8), 0.01)
    while context < 8000:
        size = pace.chunk_size(8, context)
        before = context / 1000
        shares.append(1 + token * size + reading * before + both * size * before)
        pace.note(step(8, size, context=context), 0.01 * shares[-1])
        context += size
    assert max(shares[1:]) < 2.5, "the first size is a guess"
    assert sum(shares) / len(shares) > 2.15


def test_a_chunk_in_slices_takes_a_few_steps_and_a_slice_most_of_one() -> None:
    pace, chunk = Pace(), step(0, 100)
    assert pace.sliced_size(8, 0) == 64
    assert pace.slice_seconds(None) == pace.slice_seconds(step(8)) == 0.02
    for _ in range(3):
        pace.note(step(8), 0.04)
    pace.note_sliced(chunk, 0.2)
    assert pace.sliced_size(8, 0) == 128, "whole tiles"
    assert pace.slice_seconds(step(8)) == pytest.approx(0.04)
    assert pace.slice_seconds(step(1)) == pytest.approx(0.052), "it waits for a prompt as this does for it"
    assert pace.slice_seconds(step(8, 5)) == pytest.approx(0.01), "the prompts of the step leave little"
    assert pace.slice_seconds(step(0, 5)) == pace.slice_seconds(None) == 0.02


def test_slices_leave_room_for_steps_that_wait() -> None:
    pace = Pace()
    for _ in range(9):
        pace.note(step(8), 0.04)
    for _ in range(2):
        pace.note(step(8), 0.04 * 1.6)
    assert pace.slice_seconds(step(8)) == pytest.approx(0.7 * 0.04)
    for _ in range(2):
        pace.note(step(8), 0.04 * 9)
    assert pace.slice_seconds(step(8)) == pytest.approx(0.5 * 0.04)


def test_a_step_that_waited_for_a_processor_counts_for_nothing() -> None:
    pace = Pace()
    for _ in range(3):
        pace.note(step(8), 0.04)
        pace.note(step(8, 10), 0.05)
    assert pace.chunk_size(8, 0) == 52
    pace.note(step(8), 9.0)
    assert pace.chunk_size(8, 0) == 52


@pytest.mark.parametrize(
    ("streams", "waited", "size"),
    [(8, 0.2, 52), (8, 0.3, 52), (8, 0.6, 40), (8, 0.85, 30), (8, 9.0, 20), (5, 0.85, 30), (3, 0.85, 47), (1, 9.0, 64)],
)
def test_prompts_leave_room_for_steps_that_wait_the_more_streams_there_are(
    streams: int, waited: float, size: int
) -> None:
    pace = Pace()
    for _ in range(3):
        pace.note(step(streams), 0.04)
        pace.note(step(streams, 10), 0.05)
    usual = pace.chunk_size(streams, 0)
    pace.note(step(streams, 10), 0.05 + waited * 0.04)
    pace.note(step(streams), 0.04 + waited * 0.04)
    assert pace.chunk_size(streams, 0) == size
    for _ in range(300):
        pace.note(step(streams), 0.04)
    assert pace.chunk_size(streams, 0) == usual, "waits are forgotten"


def test_two_slow_steps_in_a_row_are_believed() -> None:
    pace = Pace()
    pace.note(step(8), 0.04)
    for context in range(0, 80, 4):
        pace.note(step(8, 400, context=context), 0.0401)
    assert pace.chunk_size(8, 80) > 500
    for context in (80, 1000):
        pace.note(step(8, 900, context=context), 4.0)
    assert pace.chunk_size(8, 2000) < 20


def test_a_mixed_step_that_is_faster_than_those_without_prompts_is_their_measure() -> None:
    pace = Pace()
    for _ in range(15):
        pace.note(step(8), 0.4)
    for context in range(0, 80, 4):
        pace.note(step(8, 16, context=context), 0.05)
    for context in range(80, 160, 4):
        pace.note(step(8, 16, context=context), 0.115)
    assert 14 <= pace.chunk_size(8, 160) <= 18


def test_it_never_becomes_nothing() -> None:
    pace = Pace()
    pace.note(step(8), 0.04)
    pace.note(step(8, 10), 100.0)
    assert pace.chunk_size(8, 0) == 4
    fast = Pace()
    fast.note(step(8), 0.04)
    fast.note(step(8, 10), 0.03)
    assert fast.chunk_size(8, 0) == 16


def test_tokens_cost_more_the_more_are_before_them() -> None:
    pace = Pace()
    pace.note(step(8), 0.04)
    for context in range(0, 4000, 40):
        pace.note(step(8, 10, context=context), 0.04 + 10 * (0.0005 + context * 0.5e-6))
    sizes = [pace.chunk_size(8, context) for context in (0, 2000, 4000, 12000)]
    assert sizes == [62, 31, 21, 9], "also further than it has seen"


def test_steps_of_another_number_of_requests_are_not_the_measure() -> None:
    pace = Pace()
    pace.note(step(32), 0.12)
    pace.note(step(0, 1000), 1.0)
    assert pace.chunk_size(8, 0) == 156, "none nearer is known"
    pace.note(step(8), 0.04)
    assert [pace.chunk_size(number, 0) for number in (1, 8, 12, 32)] == [64, 52, 57, 156]


def test_prompts_beside_more_streams_than_were_measured_are_not_taken_to_be_slow() -> None:
    pace = Pace()
    pace.note(step(1), 0.010)
    for number in range(1, 13):
        pace.note(step(number, 8), 0.010 + 0.0006 * (number - 1 + 8))
    assert pace.chunk_size(12, 0) >= 8


def test_a_guessed_token_costs_what_a_step_took_longer() -> None:
    pace = Pace()
    assert pace.draft_cost == 0.1
    pace.note(step(1, num_guesses=4), 0.06)
    assert pace.draft_cost == 0.1, "nothing to compare with"
    pace.note(step(1), 0.04)
    pace.note(step(1, num_guesses=4), 0.06)
    assert pace.draft_cost == pytest.approx(0.125)
    pace.note(step(0, 1000), 1.0)
    assert pace.chunk_size(1, 0) == 64, "guesses are no prompts"
