# SPDX-License-Identifier: Apache-2.0
"""Messages that are typed or pasted: lines, blocks, and a history that is kept between sessions.

Python's own readline is enough for this: history, editing, and pasted lines as one. A library for terminals would bring
a second event loop and 400 KB.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from atb_cli.output import note
from atb_core.errors import AtbError
from atb_core.files import user_folder

_BLOCK = '"""'
_HISTORY_LENGTH = 1000
_LONGEST_TEXT = 1 << 24


def history_path() -> Path:
    """Returns the file of the history: `atb/chat_history` in `$XDG_STATE_HOME`, else in `~/.local/state`."""
    return user_folder(os.environ, "XDG_STATE_HOME", ".local/state") / "chat_history"


@contextlib.contextmanager
def line_editing() -> Iterator[None]:
    """Enables arrow keys, history and pasted lines for `input`, if Python was built with readline."""
    try:
        import readline
    except ImportError:
        yield
        return
    # Python disables it; without it each pasted line is sent as a message of its own.
    readline.parse_and_bind("set enable-bracketed-paste on")
    readline.set_history_length(_HISTORY_LENGTH)
    path, known = history_path(), 0
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        path.chmod(0o600)
        readline.read_history_file(path)
        known = readline.get_current_history_length()
    except OSError as error:
        note(f"(messages are not remembered: {path}: {error.strerror})")
    try:
        yield
    finally:
        # Appended: another chat may have written meanwhile.
        with contextlib.suppress(OSError):
            readline.append_history_file(readline.get_current_history_length() - known, path)


def read_message() -> str | None:
    """Returns the next message, `None` at the end of input; Ctrl-C drops what was typed of it."""
    while True:
        lines: list[str] = []
        try:
            lines.append(_read_line("> "))
            if not lines[0].lstrip().startswith(_BLOCK):
                return lines[0].strip()
            lines[0] = lines[0].lstrip()[len(_BLOCK) :]
            length = len(lines[0])
            while not lines[-1].rstrip().endswith(_BLOCK):
                lines.append(_read_line(". "))
                length += len(lines[-1]) + 1
                if length > _LONGEST_TEXT:
                    raise AtbError(
                        f"a message has more than {_LONGEST_TEXT:,} characters", hint=f"End it with {_BLOCK}."
                    )
            lines[-1] = lines[-1].rstrip()[: -len(_BLOCK)]
        except KeyboardInterrupt:
            note("")
            continue
        except EOFError:
            if sys.stdin.isatty():
                note("")
            if not lines:
                return None
        return "\n".join(lines).strip()


def _read_line(prompt: str) -> str:
    """Returns a line without its end; EOFError at the end of input, AtbError for a line that is longer than any."""
    if sys.stdin.isatty():
        return typed(lambda: input(prompt))
    line = typed(lambda: sys.stdin.readline(_LONGEST_TEXT + 1))
    if len(line) > _LONGEST_TEXT:
        raise AtbError(f"stdin has a line of more than {_LONGEST_TEXT:,} characters", hint="Pipe in text.")
    if not line:
        raise EOFError
    return line.removesuffix("\n")


def confirmed(question: str) -> bool:
    """Returns true for an answer that begins with y; the question goes to stderr."""
    click.echo(f"{question} [y/N]: ", nl=False, err=True)
    try:
        return _read_line("").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def piped_text() -> str:
    """Returns the whole text from stdin; AtbError if it cannot be decoded or is longer than any prompt."""
    text = typed(lambda: sys.stdin.read(_LONGEST_TEXT + 1))
    if len(text) > _LONGEST_TEXT:
        raise AtbError(f"stdin has more than {_LONGEST_TEXT:,} characters", hint="Pipe in less.")
    return text


def typed(read: Callable[[], str]) -> str:
    """Returns the text that `read` takes from stdin; AtbError if it cannot be decoded."""
    try:
        return read()
    except UnicodeDecodeError as error:
        raise AtbError(
            f"stdin is not {error.encoding}: it has the byte 0x{error.object[error.start]:02x}",
            hint="Convert it to UTF-8, or say in PYTHONIOENCODING what it is.",
        ) from None
