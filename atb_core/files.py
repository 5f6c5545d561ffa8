# SPDX-License-Identifier: Apache-2.0
"""Reads files that are untrusted: whatever their names lead to, whatever they hold and however much."""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from atb_core.errors import AtbError

_MAX_JSON_BYTES = 8 << 20
_MAX_DEPTH = 64
# An empty list of two bytes takes 64 in memory. The largest tables of tensors have two million values.
_MAX_VALUES = 4_000_000
# Many a tokenizer_config.json says "no limit" by the integer 10^30.
_MAX_DIGITS = 40
_HINT = "Correct the file, or replace it by an intact one."
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def user_path(text: str, error: type[AtbError] = AtbError) -> Path:
    """Returns the path that a user wrote, `~` expanded; raises `error` for what can be none."""
    try:
        if "\0" not in text:
            return Path(text).expanduser()
        cause = "it has a NUL"
    except RuntimeError:
        cause = "no home directory of that user is known"
    raise error(f"{text[:200]!r} is no path: {cause}", "Give the path without ~.")


def user_folder(environ: Mapping[str, str], variable: str, below_home: str) -> Path:
    """Returns this project's folder in that of an XDG variable, or in the one of the home directory.

    Without a home directory, nothing can be in the folder and nothing can be written to it.
    """
    home = Path(os.path.expanduser("~"))
    base = environ.get(variable) or (home if home.is_absolute() else Path(os.devnull)) / below_home
    return Path(base) / "atb"


def open_regular(path: Path, error: type[AtbError]) -> int:
    """Opens a file and returns its descriptor.

    Args:
        path: a file or a link to one.
        error: raised for what cannot be opened, and for what is no regular file, such as a FIFO or a device.

    Raises:
        FileNotFoundError: there is nothing at `path`.
    """
    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer; regular files ignore it.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError) as problem:
        raise FileNotFoundError(problem.errno, problem.strerror, str(path)) from None
    except OSError as problem:
        raise error(f"cannot open {path}: {problem.strerror}", "Check that you may read it.") from problem
    except ValueError as problem:  # a NUL, or half of a surrogate pair
        raise error(f"{str(path)!r} is no path: {problem}", "Give the path of a file.") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise error(f"{path} is not a regular file", "Put the file itself there, or a link to it.")
    return descriptor


def read_file(path: Path, limit: int, error: type[AtbError]) -> bytes | None:
    """Reads a whole file; returns `None` if there is none.

    Args:
        path: a file or a link to one.
        limit: the most bytes that it may hold.
        error: raised if it holds more, is no regular file, is a link to nothing, or cannot be read.
    """
    try:
        with open(open_regular(path, error), "rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        if path.is_symlink():
            raise error(f"{path} links to {os.readlink(path)}, which does not exist", _HINT) from None
        return None
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror}", _HINT) from problem
    if len(data) > limit:
        raise error(f"{path} is larger than {limit >> 20} MiB, which no such file is", _HINT)
    return data


def read_text(path: Path, limit: int, error: type[AtbError]) -> str | None:
    """Reads a text in UTF-8 as `read_file` reads bytes; without a byte order mark, lines end in a line feed."""
    data = read_file(path, limit, error)
    if data is None:
        return None
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as problem:
        raise error(f"{path} cannot be read: it is not UTF-8 at byte {problem.start}", _HINT) from None


def read_json(path: Path, error: type[AtbError], limit: int = _MAX_JSON_BYTES) -> dict[str, Any] | None:
    """Reads a JSON object as `read_file` reads bytes; `error` is raised for what `parse_json` refuses, too."""
    data = read_file(path, limit, error)
    if data is None:
        return None
    try:
        return parse_json(data)
    except ValueError as problem:
        raise error(f"{path} cannot be read: {problem}", _HINT) from None


def parse_json(data: bytes | bytearray) -> dict[str, Any]:
    """Parses a JSON object.

    Raises:
        ValueError: it is none in UTF-8; an object has a key twice; a number is infinite, no number, or an integer of
            more than 40 digits; a text has half a surrogate pair; it has more than four million values, or nests
            deeper than 64.
    """
    text = data.decode("utf-8-sig")
    if sum(map(text.count, ",[{")) > _MAX_VALUES:
        raise ValueError(f"it has more than {_MAX_VALUES:,} values")
    try:
        value = json.loads(
            text, object_pairs_hook=unique_keys, parse_constant=_constant, parse_float=_number, parse_int=_integer
        )
    except RecursionError:
        raise ValueError(f"it nests deeper than {_MAX_DEPTH}") from None
    if not isinstance(value, dict):
        raise ValueError(f"it must hold a JSON object, not {type(value).__name__}")
    _check_depth(value)
    if _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("a text has half of a surrogate pair, which is no character") from None
    return value


def _check_depth(value: Any) -> None:
    level: list[Any] = [value]
    for _ in range(_MAX_DEPTH):
        level = [child for item in level for child in _children(item)]
        if not level:
            return
    raise ValueError(f"it nests deeper than {_MAX_DEPTH}")


def _children(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns the object of these pairs, for `json.loads`; ValueError if it has a key twice."""
    table = dict(pairs)
    if len(table) != len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"it has the key {twice[:200]!r} twice")
    return table


def _constant(text: str) -> NoReturn:
    raise ValueError(f"it contains {text}, which is no number")


def _number(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _constant(text[:40])


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > _MAX_DIGITS:
        raise ValueError(f"it contains an integer of {len(text)} digits, the limit is {_MAX_DIGITS}")
    return int(text)
