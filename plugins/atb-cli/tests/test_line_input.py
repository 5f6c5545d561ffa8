# SPDX-License-Identifier: Apache-2.0
"""Piped text ends: a line, a block or an answer without an end is refused before it fills the memory."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator

import pytest

from atb_cli import line_input
from atb_cli.line_input import confirmed, read_message
from atb_core.errors import AtbError

_BOUNDED = """
import resource
from atb_cli import line_input
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
line_input.{call}
"""


def messages(text: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str | None]:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    while True:
        yield read_message()


def test_piped_lines_are_messages_and_blocks_keep_their_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'one\n\n"""two\n\n  three\n"""\nfour'
    read = messages(text, monkeypatch)
    assert [next(read) for _ in range(5)] == ["one", "", "two\n\n  three", "four", None]


@pytest.mark.parametrize(("text", "message"), [("x" * 101, "stdin has a line"), ('"""' + "ab\n" * 40, "a message")])
def test_a_line_or_a_block_that_is_longer_than_any_prompt_is_refused(
    monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.setattr(line_input, "_LONGEST_TEXT", 100)
    with pytest.raises(AtbError, match=f"{message}.* more than 100 characters"):
        next(messages(text, monkeypatch))


@pytest.mark.parametrize("call", ["read_message()", "confirmed('Remove it?')"])
def test_input_without_an_end_is_refused_within_bounds(call: str) -> None:
    code = _BOUNDED.format(call=call)
    with open("/dev/zero", "rb") as zeros:
        done = subprocess.run([sys.executable, "-c", code], stdin=zeros, capture_output=True, text=True, check=False)
    assert "AtbError: stdin has a line of more than 16,777,216 characters" in done.stderr


@pytest.mark.parametrize(
    ("answer", "is_yes"), [("y\n", True), ("Yes\n", True), ("n\n", False), ("\n", False), ("", False)]
)
def test_only_a_clear_yes_counts(monkeypatch: pytest.MonkeyPatch, answer: str, is_yes: bool) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    assert confirmed("Remove it?") is is_yes
