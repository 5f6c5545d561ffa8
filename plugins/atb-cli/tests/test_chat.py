# SPDX-License-Identifier: Apache-2.0
"""`atb chat`: the conversation is remembered, can be reset, and survives an interrupt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
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

        monkeypatch.setattr("atb_cli.line_input._read_line", read)

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
    typed("/rest", "/sytem Be brief.", "/help")
    result = atb("chat", "m")
    assert runner.requests == []
    assert "unknown command /rest; did you mean /reset?" in result.err
    assert "unknown command /sytem; did you mean /system?" in result.err
    assert "/undo" in result.err


def test_a_path_or_a_word_after_a_slash_is_a_message(atb: Run, runner: Any, typed: Callable[..., None]) -> None:
    typed("/etc/hosts, what is it?", "/r/atb is what?")
    atb("chat", "m")
    assert len(runner.requests) == 2


def test_a_file_that_cannot_be_written_is_named(
    atb: Run, runner: Any, typed: Callable[..., None], tmp_path: Path
) -> None:
    typed("one", f"/save {tmp_path}/none/x.json")
    assert f"error: {tmp_path}/none/x.json cannot be written: No such file or directory" in atb("chat", "m").err


def test_ctrl_c_stops_the_answer_and_keeps_what_was_said(atb: Run, runner: Any, typed: Callable[..., None]) -> None:
    runner.pieces = ["half", KeyboardInterrupt()]
    typed("one", "two")
    result = atb("chat", "m")
    assert result.status == 0
    assert _contents(runner.requests[1]) == ["one", "half", "two"]


def test_a_message_stopped_before_the_first_word_is_dropped(atb: Run, runner: Any, typed: Callable[..., None]) -> None:
    runner.pieces = ["", KeyboardInterrupt()]
    typed("one", "two")
    assert "(stopped)" in atb("chat", "m").err
    assert _contents(runner.requests[1]) == ["two"]


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


@pytest.mark.parametrize("word", ["exit", "quit", "/quit"])
def test_the_words_that_leave(atb: Run, runner: Any, typed: Callable[..., None], word: str) -> None:
    typed(word, "one")
    assert atb("chat", "m").status == 0
    assert runner.requests == []


def test_undo_forgets_the_last_turn(atb: Run, runner: Any, typed: Callable[..., None]) -> None:
    typed("one", "two", "/undo", "three", "/undo", "/undo", "/undo")
    result = atb("chat", "m")
    assert _contents(runner.requests[2]) == ["one", "Paris.", "three"]
    assert result.err.count("are forgotten") == 3
    assert "error: there is nothing to undo" in result.err


def test_the_system_message_can_be_shown_changed_and_removed(atb: Run, runner: Any, typed: Callable[..., None]) -> None:
    typed("/system", "/system Be brief.", "one", "/system -", "two")
    result = atb("chat", "m", "-s", "Be kind.")
    assert "system message: Be kind." in result.err
    assert _contents(runner.requests[0]) == ["Be brief.", "one"]
    assert _contents(runner.requests[1]) == ["one", "Paris.", "two"]


def test_a_sampling_parameter_can_be_changed(atb: Run, runner: Any, typed: Callable[..., None]) -> None:
    typed("/set temperature 0.5", "/set stop END", "one", "/set")
    result = atb("chat", "m", "--top-k", "7")
    sampling = runner.sampling[0]
    assert (sampling.temperature, sampling.stop, sampling.top_k) == (0.5, ("END",), 7)
    assert "temperature          0.5" in result.err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/set top_p 3", "error: top_p must be in"),
        ("/set colour 3", "error: there is no parameter 'colour'"),
        ("/set n 3", "error: there is no parameter 'n'"),
        ("/stats", "error: there is no complete answer yet"),
        ("/save", "error: name a file"),
        ("/load /no/such/file", "error: there is no file /no/such/file"),
        ("/load a\0b", "error: 'a\\x00b' is no path"),
        ("/save a\0b", "error: 'a\\x00b' is no path"),
        ("/save ~no-such-user/x", "error: '~no-such-user/x' is no path"),
    ],
)
def test_a_wrong_command_says_why_and_the_chat_goes_on(
    atb: Run, runner: Any, typed: Callable[..., None], line: str, message: str
) -> None:
    typed(line, "one")
    result = atb("chat", "m")
    assert message in result.err
    assert _contents(runner.requests[0]) == ["one"]


def test_stats_are_those_of_the_last_answer(atb: Run, runner: Any, typed: Callable[..., None]) -> None:
    typed("one", "/stats")
    err = atb("chat", "m").err
    assert "3 tokens generated (1.0 tok/s)" in err
    assert "5 of 1000 tokens of the context" in err


def test_a_saved_conversation_can_be_loaded(atb: Run, runner: Any, typed: Callable[..., None], tmp_path: Path) -> None:
    path = tmp_path / "paris.json"
    typed("one", f"/save {path}", "two", f"/save {path}")
    atb("chat", "m", "--system", "S")
    assert path.stat().st_mode & 0o077 == 0
    typed("zero", f"/load {path}", "three")
    assert "loaded 5 messages" in atb("chat", "m").err
    assert _contents(runner.requests[-1]) == ["S", "one", "Paris.", "two", "Paris.", "three"]


@pytest.mark.parametrize(
    "text",
    ["not json", "[]", '{"messages": 3}', '{"messages": [{"role": "user", "content": "x"}]}',
     '{"messages": [{"role": "user", "content": 3}]}'],
)  # fmt: skip
def test_another_file_is_neither_loaded_nor_overwritten(
    atb: Run, runner: Any, typed: Callable[..., None], tmp_path: Path, text: str
) -> None:
    path = tmp_path / "other.json"
    path.write_text(text, encoding="utf-8")
    typed(f"/load {path}", "one")
    assert "error: " in atb("chat", "m").err
    assert _contents(runner.requests[0]) == ["one"]
    if "user" not in text or "3" in text:
        typed("one", f"/save {path}")
        assert "error: " in atb("chat", "m").err
        assert path.read_text(encoding="utf-8") == text


def test_a_path_is_a_message_and_no_command(atb: Run, runner: Any, typed: Callable[..., None]) -> None:
    typed("/etc/hosts", "/reset now")
    assert "the conversation is forgotten" in atb("chat", "m").err
    assert _contents(runner.requests[0]) == ["/etc/hosts"]
