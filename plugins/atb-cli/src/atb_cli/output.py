# SPDX-License-Identifier: Apache-2.0
"""Formats results for a terminal: streamed text, tables, sizes."""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from atb_core.errors import AtbError, printable

if TYPE_CHECKING:
    from typing_extensions import Self

    from atb_core import RequestOutput, SamplingParams

_LONGEST_OUTPUT = 1 << 24

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def escape_unprintable() -> None:
    """Lets stdout write what its encoding lacks as JSON's escapes, and says so once, instead of failing."""
    said: list[str] = []

    def escaped(error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        if not said:
            said.append(error.encoding)
            note(
                f"(this output is in {error.encoding}: other characters are escaped; PYTHONIOENCODING=utf-8 keeps them)"
            )
        return json.dumps(error.object[error.start : error.end])[1:-1], error.end

    codecs.register_error("atb-escape", escaped)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="atb-escape")


def open_closed_streams() -> None:
    """Opens `/dev/null` in place of each of stdin, stdout and stderr that the caller has closed."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - as long as the process


class TextStream:
    """Prints text as it comes and ends the line, even if the source of the text is interrupted."""

    def __init__(self) -> None:
        self._last = "\n"

    def write(self, text: str) -> None:
        """Prints `text` immediately."""
        if text:
            sys.stdout.write(terminal_safe(text))
            sys.stdout.flush()
            self._last = text[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._last != "\n" and kind is not BrokenPipeError:
            sys.stdout.write("\n")
            sys.stdout.flush()


def say(text: str) -> None:
    """Prints lines for a person on stdout; what is not printable, and may be from a file, is escaped."""
    click.echo(printable(text, _LONGEST_OUTPUT, keep="\n\t"))


@contextmanager
def writing(path: object) -> Iterator[None]:
    """Names a file in the error of a disk that is full or of a folder that is gone, while the file is written.

    Raises:
        AtbError: it cannot be written.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise AtbError(
            f"{path} cannot be written: {error.strerror}",
            hint="Check that you may write there and that the disk has room, or choose another place.",
        ) from error


def write_whole(path: Path, text: str, errors: str = "strict") -> None:
    """Writes a file that has its old content or all of the new one at any time; a device or a FIFO has neither.

    Raises:
        AtbError: it cannot be written.
    """
    with writing(path):
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8", errors=errors)
            return
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            partial.write_text(text, encoding="utf-8", errors=errors)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def terminal_safe(text: str) -> str:
    """Returns a text that is printed as it is: a model's, a template. On a terminal, control characters are removed.

    Tab and newline stay. What goes to a file or a pipe is not changed.
    """
    if not sys.stdout.isatty():
        return text
    return "".join(char for char in text if char in "\n\t" or not (ord(char) < 32 or 127 <= ord(char) < 160))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table with columns as wide as their widest cell; cells may be from files."""
    lines = [header, *([*(printable(cell, 200) for cell in row[:-1]), printable(row[-1], 4000)] for row in rows)]
    widths = [max(len(row[column]) for row in lines) for column in range(len(header) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in lines
    )


def aligned(rows: Mapping[str, object]) -> str:
    """Returns names and values in two columns; values may be from files."""
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {printable(value, 4000)}" for name, value in rows.items())


def size_text(nbytes: float) -> str:
    """Returns bytes in binary units with three significant digits: `943 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if nbytes < 1000 or unit == "TiB":
            break
        nbytes /= 1024
    digits = 0 if nbytes >= 100 or unit == "B" else 1 if nbytes >= 10 else 2
    return f"{nbytes:.{digits}f} {unit}"


def count_text(count: int) -> str:
    """Returns a number of parameters with three significant digits: `494 M`."""
    for unit, factor in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= factor:
            value = count / factor
            return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} {unit}"
    return str(count)


def plugins_text(count: int) -> str:
    """Returns `1 plugin`, `2 plugins`."""
    return f"{count} plugin{'' if count == 1 else 's'}"


def note(text: str) -> None:
    """Prints a remark on stderr, apart from the result."""
    click.echo(printable(text, _LONGEST_OUTPUT, keep="\n\t"), err=True)


def note_of_cut(output: RequestOutput, params: SamplingParams) -> None:
    """Prints a remark if a limit ended an answer."""
    if output.outputs[0].finish_reason == "length":
        full = params.max_tokens is None or len(output.token_ids) < params.max_tokens
        note("(stopped: the context is full)" if full else f"(stopped at --max-tokens {params.max_tokens})")
