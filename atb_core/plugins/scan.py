# SPDX-License-Identifier: Apache-2.0
"""One look at what is installed: every distribution with entry points for `atb_core`, from metadata alone.

The directories of `sys.path` are listed once in a process. `entry_points.txt` is read everywhere, the other metadata
only of distributions that are ours; nothing is imported. Whatever is wrong with a distribution's files ends in its
`problem`, never in an exception. As in Python, the first copy of a distribution on `sys.path` is the one that counts.
Distributions inside zip archives are not looked for.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from atb_core.names import normalized_name
from atb_core.plugins.metadata import Entry, Headers, parse_entry_points, parse_headers
from atb_core.plugins.once import Once

__all__ = ["API", "CONFIGS", "CPP_MODELS", "GROUPS", "HOOKS", "MODELS", "ROUTERS", "Entry", "Environment", "Installed"]
__all__ += ["environment", "installed", "scan"]

ROUTERS = "atb_core.routers"
CONFIGS = "atb_core.configs"
MODELS = "atb_core.models"
#: Models whose graph C++ builds: the name is that of the model.
CPP_MODELS = "atb_core.cpp_models"
#: Modules that implement hooks.
HOOKS = "atb_core.plugins"
#: The API versions that a package is written for: the name is the number.
API = "atb_core.api"
GROUPS = frozenset({ROUTERS, CONFIGS, MODELS, CPP_MODELS, HOOKS, API})

# What every group's name starts with: a file without these bytes need not be parsed.
_MARK = b"atb_core."
_CORE = "atb-core"
_MAX_METADATA_BYTES = 8 << 20


@dataclass(frozen=True)
class Installed:
    """An installed distribution that extends `atb_core`, or would if its metadata could be read.

    Attributes:
        distribution: its name as its author spells it.
        path: where its metadata lies.
        entries: its entry points in our groups.
        requires: its requirements, as in `Requires-Dist`.
        api_versions: the API versions it is written for; empty if it does not say.
        problem: what is wrong with its metadata, a sentence; `None`: nothing.
        fix: the next step, where there is a problem.
        shadowed: further copies of its metadata, which Python does not use.
    """

    distribution: str
    version: str
    summary: str
    path: Path
    entries: tuple[Entry, ...]
    requires: tuple[str, ...] = ()
    api_versions: tuple[int, ...] = ()
    problem: str | None = None
    fix: str | None = None
    shadowed: tuple[Path, ...] = ()

    @property
    def package(self) -> str:
        """Name and version, for messages: `atb-foo 0.1.0`."""
        return f"{self.distribution} {self.version}" if self.version else self.distribution

    @property
    def key(self) -> str:
        """The name as names are compared."""
        return normalized_name(self.distribution)

    @property
    def model_types(self) -> tuple[str, ...]:
        """What its entry points claim to serve."""
        return tuple(sorted({entry.name for entry in self.entries if entry.group in (ROUTERS, CONFIGS, MODELS)}))

    @property
    def hook_modules(self) -> tuple[str, ...]:
        """The modules in which it implements hooks."""
        return tuple(entry.module for entry in self.entries if entry.group == HOOKS)


@dataclass(frozen=True)
class _Found:
    """A metadata directory or file, known by its name only."""

    path: Path
    name: str
    version: str

    @property
    def key(self) -> str:
        return normalized_name(self.name)


class Environment:
    """What is installed on a search path.

    Args:
        path: directories, as in `sys.path`.
    """

    def __init__(self, path: Iterable[str]) -> None:
        self._copies: dict[str, list[_Found]] = {}
        for found in _metadata_on(path):
            self._copies.setdefault(found.key, []).append(found)
        self._versions: dict[str, str | None] = {}
        ours = (_ours(copies) for copies in self._copies.values())
        #: The distributions that extend `atb_core`, by name.
        self.installed = tuple(sorted((one for one in ours if one is not None), key=lambda one: one.key))

    def version(self, name: str) -> str | None:
        """The version of an installed distribution; `None` if there is none, or if it does not say."""
        key = normalized_name(name)
        if key not in self._versions:
            copies = self._copies.get(key)
            self._versions[key] = _version(copies[0]) if copies else None
        return self._versions[key]

    def __contains__(self, name: str) -> bool:
        return normalized_name(name) in self._copies


def scan(path: Sequence[str]) -> Environment:
    """Looks at the directories of `path`, without a cache."""
    return Environment(path)


@Once
def environment() -> Environment:
    """What is installed on `sys.path`, scanned once; `environment.cache_clear()` makes the next call scan again."""
    return Environment(sys.path)


@Once
def installed() -> tuple[Installed, ...]:
    """The distributions that extend `atb_core`, by name; scanned once, `installed.cache_clear()` forgets."""
    return environment().installed


def _metadata_on(path: Iterable[str]) -> Iterator[_Found]:
    """Every metadata directory or file, in the order in which Python finds them."""
    seen = set()
    for root in path:
        try:
            status = os.stat(root or ".")
            # One directory may be on the path twice, or under two names (lib and lib64).
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(root or ".") as children:
                names = [child.name for child in children]
        except OSError:
            continue
        for name in names:
            found = _from_name(Path(root), name)
            if found is not None:
                yield found


def _from_name(root: Path, name: str) -> _Found | None:
    lower = name.lower()
    if lower.endswith(".dist-info"):
        stem, _, version = name[: -len(".dist-info")].rpartition("-")
        return _Found(root / name, stem, version) if stem else _Found(root / name, version, "")
    if lower.endswith(".egg-info"):
        stem, _, rest = name[: -len(".egg-info")].partition("-")
        return _Found(root / name, stem, rest.partition("-py")[0])
    if lower == "egg-info" and root.suffix.lower() == ".egg":
        stem, _, rest = root.stem.partition("-")
        return _Found(root / name, stem, rest.partition("-py")[0])
    return None


def _ours(copies: list[_Found]) -> Installed | None:
    """What the copies of one distribution come to, the first being the one that Python uses."""
    first = copies[0]
    one = _read(first)
    others = tuple(copy.path for copy in copies[1:])
    if one is None:
        return _hidden(first, copies[1:])
    return replace(one, shadowed=others) if others else one


def _hidden(first: _Found, others: list[_Found]) -> Installed | None:
    """A copy with entry points behind one that has none: the old metadata wins, and the plugin is invisible."""
    for copy in others:
        one = _read(copy)
        if one is not None and one.entries:
            return replace(
                one,
                problem=f"{first.path} comes first on sys.path and offers no entry points, which hides this copy",
                fix=f"Remove {first.path}, which is stale, or take its directory off sys.path.",
                shadowed=tuple(other.path for other in others if other is not copy),
            )
    return None


def _read(found: _Found) -> Installed | None:
    """The distribution, if it is ours: it has entries in our groups, or is called atb-... and cannot be read."""
    data, problem = _bytes(found.path / "entry_points.txt")
    if data is None and problem is None and not _by_name(found):
        return None
    if data is not None and _MARK not in data and not _by_name(found):
        return None
    entries: tuple[Entry, ...] = ()
    if data is not None:
        entries, problem = parse_entry_points(data, GROUPS, "its entry_points.txt")
    if not entries and not _by_name(found):
        return None
    headers, broken = _headers(found)
    problem = problem or broken
    if not entries and problem is None:
        return None
    versions, wrong = _api_versions(entries)
    problem = problem or wrong
    if found.name.startswith("~"):
        # pip renames what it is about to replace; an interrupted run leaves it.
        problem = "it is what an interrupted pip run left behind"
    name = headers.name if normalized_name(headers.name) == found.key else found.name.replace("_", "-")
    return Installed(
        name,
        headers.version or found.version,
        headers.summary,
        found.path,
        entries,
        headers.requires,
        versions,
        problem,
        _repair(found, name) if problem else None,
    )


def _repair(found: _Found, name: str) -> str:
    if found.name.startswith("~"):
        return f"Remove {found.path}."
    return f"pip install --force-reinstall --no-deps {name}"


def _by_name(found: _Found) -> bool:
    return found.key.startswith("atb-") and found.key != _CORE


def _bytes(path: Path) -> tuple[bytes | None, str | None]:
    """A file's contents, and why it cannot be read; a file that is not there is no problem."""
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_METADATA_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    except OSError as error:
        return None, f"its {path.name} cannot be read: {error.strerror or error}"
    if len(data) > _MAX_METADATA_BYTES:
        return None, f"its {path.name} is larger than {_MAX_METADATA_BYTES} bytes"
    return data, None


def _headers(found: _Found) -> tuple[Headers, str | None]:
    """The headers of a distribution of ours."""
    data, problem, source = _metadata_file(found)
    if data is None:
        return Headers(), problem or f"it has no {source}"
    headers, problem = parse_headers(data, f"its {source}")
    if not headers.requires and source == "PKG-INFO" and found.path.is_dir():
        headers = Headers(headers.name, headers.version, headers.summary, _egg_requires(found.path))
    return headers, problem


def _metadata_file(found: _Found) -> tuple[bytes | None, str | None, str]:
    if found.path.suffix.lower() == ".dist-info":
        return *_bytes(found.path / "METADATA"), "METADATA"
    data, problem = _bytes(found.path / "PKG-INFO")
    if data is None and problem is None and found.path.is_file():
        data, problem = _bytes(found.path)
    return data, problem, "PKG-INFO"


def _egg_requires(path: Path) -> tuple[str, ...]:
    """Requirements of a source tree, which older setuptools writes into a file and format of their own."""
    if not (path / "requires.txt").is_file():
        return ()
    from importlib.metadata import PathDistribution

    try:
        return tuple(PathDistribution(path).requires or ())
    # What cannot be read is not checked.
    except (OSError, ValueError):
        return ()


def _version(found: _Found) -> str | None:
    data, _, source = _metadata_file(found)
    if data is None:
        return found.version or None
    return parse_headers(data.partition(b"\n\n")[0], source)[0].version or found.version or None


def _api_versions(entries: Iterable[Entry]) -> tuple[tuple[int, ...], str | None]:
    names = [entry.name for entry in entries if entry.group == API]
    wrong = [name for name in names if not (name.isascii() and name.isdigit())]
    if wrong:
        return (), f"its entry point {wrong[0]!r} in {API} is no number"
    return tuple(sorted(map(int, names))), None
