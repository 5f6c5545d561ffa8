# SPDX-License-Identifier: Apache-2.0
"""Counts of instructions are compared by name, within a tolerance."""

from __future__ import annotations

from count_instructions import changes


def test_equal_counts_have_no_changes() -> None:
    assert changes({"linear": 1000}, {"linear": 1000}) == []


def test_a_change_within_the_tolerance_is_none() -> None:
    assert changes({"linear": 1000}, {"linear": 1019}) == []


def test_more_and_fewer_instructions_are_named_with_both_counts() -> None:
    assert changes({"linear": 1000, "norm": 1000}, {"linear": 1100, "norm": 900}) == [
        "linear: 1,100 instructions, +10.0% against 1,000",
        "norm: 900 instructions, -10.0% against 1,000",
    ]


def test_cases_that_came_and_went_are_named() -> None:
    assert changes({"old": 1}, {"new": 2}) == ["new: 2 instructions, not counted before", "old: no longer there"]
