# SPDX-License-Identifier: Apache-2.0
"""`atb chat`: the conversation is remembered, can be reset, and survives an interrupt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from atb_core.errors import AtbError, ContextLengthError

Run = Callable[..., Any]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the person type these lines; an exception stands for a key such as Ctrl-C. Then Ctrl-D."""

    def lines(*entries: str | BaseException) -> None:
        pending: Iterator[str | BaseException] = iter(entries)

        def read(prompt: str = "") -> str:
            entry = next(pending, EOFError())
            if isinstance(entry, BaseException):
                raise entry
            return entry

        monkeypatch.setattr("builtins.input", read)

    return lines


def _contents(request: list[dict[str, str]]) -> list[str]:
    return [message["content"] for message in request]


def test_the_model_sees_the_conversation_so_far(atb: Run, runner: Any, typed: Callable[..., None]) -> None:
    typed("one", "two")
    result = atb("chat", "m", "--system", "S")
    assert result.status == 0
    assert result.out == "Paris.\nParis.\n"
    assert _contents(runner.requests[1]) == ["S", "one", "Paris.", "two"]
    assert [message["role"] for message in runner.requests[1]] == ["system", "user", "assistant", "user"]


def test_reset_forgets_all_but_the_system_message(atb: Run, runner: Any, typed: Callable[..., None]) -> None:
    typed("one", "/reset", "two")
    atb("chat", "m", "--system", "S")
    assert _contents(runner.requests[1]) == ["S", "two"]


def test_exit_leaves_at_once(atb: Run, runner: Any, typed: Callable[..., None]) -> None:
    typed("/exit", "one")
    assert atb("chat", "m").status == 0
    assert runner.requests == []


def test_an_unknown_command_is_not_sent_to_the_model(atb: Run, runner: Any, typed: Callable[..., None]) -> None:
    typed("/rest", "/help")
    result = atb("chat", "m")
    assert runner.requests == []
    assert "unknown command /rest" in result.err
    assert "/reset" in result.err


def test_ctrl_c_stops_the_answer_and_keeps_what_was_said(atb: Run, runner: Any, typed: Callable[..., None]) -> None:
    runner.pieces = ["half", KeyboardInterrupt()]
    typed("one", "two")
    result = atb("chat", "m")
    assert result.status == 0
    assert _contents(runner.requests[1]) == ["one", "half", "two"]


def test_ctrl_c_at_the_prompt_only_drops_the_line(atb: Run, runner: Any, typed: Callable[..., None]) -> None:
    typed(KeyboardInterrupt(), "one")
    assert atb("chat", "m").status == 0
    assert len(runner.requests) == 1


def test_a_message_that_is_refused_leaves_the_conversation_as_it_was(
    atb: Run, runner: Any, typed: Callable[..., None]
) -> None:
    runner.pieces = [AtbError("too long")]
    typed("one", "two")
    result = atb("chat", "m")
    assert result.status == 0
    assert "error: too long" in result.err
    assert _contents(runner.requests[1]) == ["two"]


def test_a_conversation_that_outgrows_the_context_loses_its_oldest_turns(
    atb: Run, runner: Any, typed: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = runner._chunks

    def chunks() -> Iterator[Any]:
        if len(runner.requests[-1]) > 4:
            raise ContextLengthError("too long")
        return answer()

    monkeypatch.setattr(runner, "_chunks", chunks)
    typed("one", "two", "three")
    result = atb("chat", "m", "--system", "S")
    assert result.status == 0
    assert _contents(runner.requests[-1]) == ["S", "two", "Paris.", "three"]
    assert "the context is full: dropped the oldest turn" in result.err


def test_a_single_message_that_is_too_long_is_refused(atb: Run, runner: Any, typed: Callable[..., None]) -> None:
    runner.pieces = [ContextLengthError("too long")]
    typed("one")
    result = atb("chat", "m")
    assert result.status == 0
    assert "error: too long" in result.err


def test_room_is_made_before_the_context_is_quite_full(atb: Run, runner: Any, typed: Callable[..., None]) -> None:
    # Two tokens of the prompt and three of the answer are more than three quarters of this.
    runner.max_model_len = 6
    typed("one", "two")
    atb("chat", "m")
    assert _contents(runner.requests[1]) == ["two"]


def test_a_block_in_triple_quotes_is_one_message(atb: Run, runner: Any, typed: Callable[..., None]) -> None:
    typed('"""first', "", 'last"""', '"""one line"""', "next")
    atb("chat", "m")
    assert runner.requests[0][0]["content"] == "first\n\nlast"
    assert runner.requests[1][2]["content"] == "one line"
    assert runner.requests[2][4]["content"] == "next"


def test_ctrl_c_in_a_block_drops_all_of_it(atb: Run, runner: Any, typed: Callable[..., None]) -> None:
    typed('"""first', KeyboardInterrupt(), "one", '"""')
    atb("chat", "m")
    assert _contents(runner.requests[0]) == ["one"]


def test_lines_that_were_pasted_together_are_one_message(atb: Run, runner: Any, typed: Callable[..., None]) -> None:
    typed("/etc is a folder\nand so is /usr")
    atb("chat", "m")
    assert _contents(runner.requests[0]) == ["/etc is a folder\nand so is /usr"]
