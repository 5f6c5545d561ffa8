# SPDX-License-Identifier: Apache-2.0
"""Versions out of the files that Ascend's packages leave, whatever state those files are in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

_MAX_BYTES = 1 << 20
_RELEASE = re.compile(r"(\d{1,6})\.(\d{1,6})")
# `8.2.RC1`, `8.0.T63.B020`, `9.0.0-beta.2`; five numbers are a component's own numbering.
_VERSION = re.compile(r"(?:[A-Za-z]+-)?(\d{1,6}\.\d{1,6}[\w.+-]{0,60})\Z")
_INTERNAL = re.compile(r"\d+(\.\d+){4}")

Release = tuple[int, int]


def release(version: str | None) -> Release | None:
    """Major and minor number, which is what packages are matched by; None if there is no such thing in `version`."""
    match = _RELEASE.match(version or "")
    return (int(match[1]), int(match[2])) if match else None


@dataclass(frozen=True)
class VersionFile:
    """A file that may hold a version.

    Attributes:
        keys: the names that the version may stand under, the best first; case does not matter.
    """

    path: Path
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Read:
    """A version, or why there is none.

    Attributes:
        version: of the first file that has one; None if none has.
        problems: what is wrong with files that are there and give no version, a sentence each.
    """

    version: str | None
    problems: tuple[str, ...] = ()


def read_version(files: Iterable[VersionFile]) -> Read:
    """The version in the first of `files` that has one. A file that is missing is no problem, a damaged one is."""
    problems = []
    for file in files:
        try:
            text = read_text(file.path)
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(f"{file.path} cannot be read: {error.strerror or error}")
            continue
        version = _find(text, file.keys)
        if version is not None:
            return Read(version, tuple(problems))
        problems.append(f"{file.path} holds no version (looked for {', '.join(file.keys)})")
    return Read(None, tuple(problems))


def read_text(path: Path) -> str:
    """The beginning of a text file; bytes that are no UTF-8 become replacement characters. OSError as `open` has it."""
    with path.open("rb") as file:
        return file.read(_MAX_BYTES).decode("utf-8", errors="replace")


def values(text: str) -> dict[str, str]:
    """`key=value` and `key : value` lines; keys in lower case, the first of each counts."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        match = re.match(r"\s*([\w -]+?)\s*[=:]\s*(.*?)\s*\Z", line)
        if match:
            found.setdefault(match[1].lower(), match[2])
    return found


def _find(text: str, keys: Sequence[str]) -> str | None:
    found = values(text)
    for key in keys:
        # `[component's own version:version of the release]`, or the release alone.
        value = found.get(key.lower(), "").strip("[]").rpartition(":")[2]
        match = _VERSION.match(value)
        if match and not _INTERNAL.match(match[1]):
            return match[1]
    return None
