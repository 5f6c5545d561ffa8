# SPDX-License-Identifier: Apache-2.0
"""How results look on a terminal: streamed text, tables, sizes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from typing_extensions import Self

    from atb_core import RequestOutput, SamplingParams


class TextStream:
    """Prints text as it comes and ends the line, also when what produces the text is interrupted."""

    def __init__(self) -> None:
        self._last = "\n"

    def write(self, text: str) -> None:
        """Prints `text` at once."""
        if text:
            sys.stdout.write(_terminal_safe(text) if sys.stdout.isatty() else text)
            sys.stdout.flush()
            self._last = text[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._last != "\n" and kind is not BrokenPipeError:
            sys.stdout.write("\n")
            sys.stdout.flush()


def _terminal_safe(text: str) -> str:
    """A model's output must not drive the terminal: no control characters but tab and newline."""
    return "".join(char for char in text if char in "\n\t" or not (ord(char) < 32 or 127 <= ord(char) < 160))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; the last one as long as it likes."""
    lines = [header, *rows]
    widths = [max(len(row[column]) for row in lines) for column in range(len(header) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in lines
    )


def size_text(nbytes: float) -> str:
    """Bytes in binary units, three significant digits: `943 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if nbytes < 1000 or unit == "TiB":
            break
        nbytes /= 1024
    digits = 0 if nbytes >= 100 or unit == "B" else 1 if nbytes >= 10 else 2
    return f"{nbytes:.{digits}f} {unit}"


def count_text(count: int) -> str:
    """A count of parameters: `494 M`."""
    for unit, factor in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= factor:
            value = count / factor
            return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} {unit}"
    return str(count)


def plugins_text(count: int) -> str:
    """`1 plugin`, `2 plugins`."""
    return f"{count} plugin{'' if count == 1 else 's'}"


def note(text: str) -> None:
    """Prints a remark beside the result, on stderr."""
    click.echo(text, err=True)


def note_of_cut(output: RequestOutput, params: SamplingParams) -> None:
    """Prints a remark if an answer was cut off by a limit."""
    if output.outputs[0].finish_reason == "length":
        full = params.max_tokens is None or len(output.token_ids) < params.max_tokens
        note("(stopped: the context is full)" if full else f"(stopped at --max-tokens {params.max_tokens})")
