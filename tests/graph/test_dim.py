# SPDX-License-Identifier: Apache-2.0
"""Symbolic sizes behave like the integers that they stand for."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atb_core.graph.dim import Dim, DimLike, shape_text

T, B = Dim("T"), Dim("B")


@st.composite
def expressions(draw: st.DrawFn, depth: int = 3) -> tuple[DimLike, str]:
    """A size and the Python expression it was made from."""
    if depth == 0 or draw(st.booleans()):
        text = draw(st.sampled_from(["T", "B", "3", "7"]))
        return (eval(text, {"T": T, "B": B})), text
    left, left_text = draw(expressions(depth - 1))
    right, right_text = draw(expressions(depth - 1))
    operator = draw(st.sampled_from(["+", "*", "-"]))
    value = left + right if operator == "+" else left * right if operator == "*" else left - right
    return value, f"({left_text} {operator} {right_text})"


@given(expressions(), st.integers(0, 50), st.integers(0, 50))
def test_arithmetic_agrees_with_integers(expression: tuple[DimLike, str], t: int, b: int) -> None:
    size, text = expression
    value = size.evaluate({"T": t, "B": b}) if isinstance(size, Dim) else size
    assert value == eval(text, {"T": t, "B": b})


def test_equal_sizes_are_equal_however_written() -> None:
    assert (T + 1) * 2 == T * 2 + 2
    assert hash(T * B) == hash(B * T)
    assert T != B and T != 5


def test_constants_become_ints() -> None:
    assert T - T == 0
    assert (T + 4) - T == 4


def test_exact_division_stays_exact_and_inexact_division_is_evaluated_late() -> None:
    assert (T * 64) // 64 == T
    assert (T * B * 6) // (B * 2) == T * 3
    half = T // 2
    assert isinstance(half, Dim) and half.evaluate({"T": 7}) == 3
    assert half.names == {"T"}


def test_division_that_cannot_be_meant_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot divide"):
        T // 0
    with pytest.raises(ValueError, match="not a multiple"):
        T // B


def test_a_name_must_be_an_identifier() -> None:
    with pytest.raises(ValueError, match="identifier"):
        Dim("two words")


def test_text_and_element_counts() -> None:
    assert shape_text((T, 64)) == "[T, 64]"
    assert shape_text(None) == "[?]"
    assert math.prod((T, 4, 16)) == T * 64
