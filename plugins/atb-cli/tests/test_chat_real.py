# SPDX-License-Identifier: Apache-2.0
"""`atb chat` with a model that really runs: in this process, and on a terminal of its own."""

from __future__ import annotations

import fcntl
import functools
import json
import os
import pty
import re
import select
import stat
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
_PASTE = "\x1b[200~{}\x1b[201~"


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the person type these lines, then Ctrl-D."""

    def lines(*entries: str) -> None:
        pending = iter(entries)

        def read(prompt: str = "") -> str:
            try:
                return next(pending)
            except StopIteration:
                raise EOFError from None

        monkeypatch.setattr("atb_cli.line_input._read_line", read)

    return lines


def test_a_conversation_that_outgrows_the_context_goes_on(atb: Run, chat_model: str, say: Callable[..., None]) -> None:
    say("one two three", "four five six", "seven eight nine", "ten", "/stats")
    result = atb("chat", chat_model, "--max-model-len", "90", "--max-tokens", "8", "--ignore-eos")
    assert result.status == 0
    assert "(the context is full: dropped the oldest turn)" in result.err
    assert result.err.count("(stopped at --max-tokens 8)") == 4
    assert re.search(r"8 tokens generated .* of 90 tokens of the context", result.err)


def test_a_message_that_is_longer_than_the_context_ends_nothing(
    atb: Run, chat_model: str, say: Callable[..., None]
) -> None:
    say("word " * 60, "hi")
    result = atb("chat", chat_model, "--max-model-len", "64", "--max-tokens", "4", "--ignore-eos")
    assert result.status == 0
    assert re.search(r"error: The prompt has \d+ tokens; the context holds 64", result.err)
    assert result.err.count("(stopped at --max-tokens 4)") == 1


def test_a_template_that_refuses_a_message_ends_nothing(
    atb: Run, chat_model: str, say: Callable[..., None], tmp_path: Path
) -> None:
    strict = tmp_path / "strict.jinja"
    strict.write_text(
        "{% for m in messages %}{% if 'bad' in m.content %}{{ raise_exception('no bad words') }}{% endif %}"
        "{{ m.role }}: {{ m.content }}\n{% endfor %}",
        encoding="utf-8",
    )
    say("a bad word", "good")
    result = atb("chat", chat_model, "--chat-template", str(strict), "--max-tokens", "3", "--ignore-eos")
    assert result.status == 0
    assert "no bad words" in result.err
    assert result.err.count("(stopped at --max-tokens 3)") == 1


class Terminal:
    """`atb` on a pseudo-terminal."""

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "atb_cli", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm", **environment},
            start_new_session=True,
            # Ctrl-C interrupts what a terminal controls.
            preexec_fn=functools.partial(fcntl.ioctl, slave, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.shown = ""

    def expect(self, text: str, seconds: float = 120.0) -> None:
        """Waits until `text` is shown and forgets what is before its end."""
        deadline = time.monotonic() + seconds
        while text not in self.shown:
            ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{text!r} is not shown, but {self.shown[-400:]!r}"
            self.shown += os.read(self._master, 65536).decode(errors="replace")
        self.shown = self.shown.partition(text)[2]

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def expect_sleep(self, seconds: float = 120.0) -> None:
        """Waits until the main thread sleeps, but not for a lock of Python: it waits for a key."""
        deadline = time.monotonic() + seconds
        process = Path(f"/proc/{self.process.pid}")
        while (
            "futex" in (process / "wchan").read_text()
            or (process / "stat").read_text().rpartition(")")[2].split()[0] != "S"
        ):
            assert time.monotonic() < deadline, "the chat does not wait for a key"
            time.sleep(0.01)


@pytest.fixture
def terminal(chat_model: str, tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Opens chats with the tiny model whose history is in a folder of the test."""
    opened = []

    def open_it(*arguments: str) -> Terminal:
        paths = [str(tmp_path / "site"), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        environment = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "XDG_STATE_HOME": str(tmp_path / "state")}
        options = ["--max-tokens", "3", "--ignore-eos", "--backend", "reference", *arguments]
        opened.append(Terminal(["chat", chat_model, *options], environment))
        return opened[-1]

    yield open_it
    for one in opened:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


def test_lines_pasted_into_a_terminal_are_one_message_and_remembered(
    terminal: Callable[..., Terminal], tmp_path: Path
) -> None:
    pytest.importorskip("readline")
    saved = tmp_path / "saved.json"
    chat = terminal()
    chat.expect("/help for help")
    chat.expect("> ")
    chat.type(_PASTE.format("first line\n\nthird line"))
    chat.type("\r")
    chat.expect("(stopped at --max-tokens 3)")
    chat.expect("> ")
    chat.type(f"/save {saved}\r")
    chat.expect("saved to")
    chat.expect("> ")
    chat.type("a word of mine\r")
    chat.expect("(stopped at")
    chat.expect("> ")
    chat.type("\x04")
    assert chat.process.wait(timeout=60) == 0
    messages = json.loads(saved.read_text(encoding="utf-8"))["messages"]
    assert messages[0] == {"role": "user", "content": "first line\n\nthird line"}
    assert [message["role"] for message in messages] == ["user", "assistant"]

    history = tmp_path / "state" / "atb" / "chat_history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert "a word of mine" in history.read_text(encoding="utf-8")
    again = terminal()
    again.expect("> ")
    again.type("\x1b[A")  # the arrow up
    again.expect("a word of mine")
    again.type("\x15quit\r")
    assert again.process.wait(timeout=60) == 0


def test_ctrl_c_at_the_prompt_drops_the_line_and_the_chat_goes_on(terminal: Callable[..., Terminal]) -> None:
    chat = terminal()
    chat.expect("/help for help")
    chat.expect("> ")
    chat.type("never sent")
    chat.expect("never sent")
    # Python sees an interrupt that comes between the printing and the reading of keys with the next key only.
    chat.expect_sleep()
    chat.type("\x03")
    chat.expect("> ")
    chat.type("/undo\r")
    chat.expect("error: there is nothing to undo")
    chat.type("exit\r")
    assert chat.process.wait(timeout=60) == 0
