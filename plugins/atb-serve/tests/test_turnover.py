# SPDX-License-Identifier: Apache-2.0
"""A client that finds a full queue is told when to come again."""

from __future__ import annotations

from atb_serve.errors import api_error
from atb_serve.turnover import Turnover


class Clock:
    """Time that passes when it is told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def ended(clock: Clock, *gaps: float) -> Turnover:
    """One request, and others that end after these seconds one after another while it runs."""
    turnover = Turnover(clock)
    turnover.begin()
    for gap in gaps:
        turnover.begin()
        clock.now += gap
        turnover.end()
    return turnover


def test_the_queue_is_worked_off_at_the_rate_at_which_requests_end() -> None:
    turnover = ended(Clock(), *[0.5] * 20)
    assert [turnover.seconds_for(count) for count in (1, 3, 10, 256)] == [1, 2, 5, 60]


def test_a_batch_that_ends_together_is_one_wait() -> None:
    assert ended(Clock(), *[0, 0, 0, 4.0] * 5).seconds_for(8) == 8


def test_without_an_end_so_far_the_time_since_the_first_request_counts() -> None:
    clock = Clock()
    assert Turnover(clock).seconds_for(9) == 1
    turnover = ended(clock)
    assert turnover.seconds_for(9) == 1
    clock.now += 2.0
    assert turnover.seconds_for(9) == 18


def test_idle_time_does_not_count_but_a_request_that_takes_long_does() -> None:
    clock = Clock()
    turnover = ended(clock, *[1.0] * 4)
    turnover.end()
    clock.now += 3600
    assert turnover.seconds_for(5) == 4, "a burst may fill the queue before its first request is at the engine"
    turnover.begin()
    assert turnover.seconds_for(5) == 4
    clock.now += 16
    assert turnover.seconds_for(5) == 17


def test_only_the_last_ends_count() -> None:
    assert ended(Clock(), *[9.0] * 10, *[0.25] * 64).seconds_for(8) == 2


def test_the_answer_has_the_time() -> None:
    clock = Clock()
    answer = api_error(ended(clock, *[2.0] * 4).full(7, "requests"))
    assert (answer.status, answer.code, answer.headers) == (429, "queue_full", {"Retry-After": "14"})
    assert answer.message.startswith("7 requests wait already, which is the limit.")
