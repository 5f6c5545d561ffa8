# SPDX-License-Identifier: Apache-2.0
"""Lists the installed distributions with entry points for `atb_core`, from their metadata alone.

The directories of `sys.path` are listed once in a process. `entry_points.txt` is read everywhere, other metadata only
of distributions with such entry points; nothing is imported. Damage to a distribution's files ends in its `problem`,
never in an exception. As in Python, the first copy of a distribution on `sys.path` counts. Zip archives are not read.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from atb_core.errors import PluginError, printable
from atb_core.extensions import Owner
from atb_core.files import read_file
from atb_core.models.families import CONFIGS, MODELS, ROUTERS
from atb_core.names import normalized_name
from atb_core.plugins.metadata import Entry, Headers, decoded, parse_entry_points, parse_headers
from atb_core.plugins.once import Once

__all__ = ["API", "CONFIGS", "CPP_MODELS", "GROUPS", "HOOKS", "MODELS", "ROUTERS", "Entry", "Environment", "Installed"]
__all__ += ["environment", "installed"]

#: Models whose graph C++ builds, read by atb-cpp-models; the name of an entry is that of the model.
CPP_MODELS = "atb_core.cpp_models"
#: Modules that implement hooks.
HOOKS = "atb_core.plugins"
#: The API versions that a package is written for; the name of an entry is the number.
API = "atb_core.api"
GROUPS = frozenset({ROUTERS, CONFIGS, MODELS, CPP_MODELS, HOOKS, API})

# Every group begins with it: a file without these bytes need not be parsed.
_MARK = b"atb_core."
_CORE = "atb-core"
_MAX_METADATA_BYTES = 8 << 20
_API_NUMBER = re.compile(r"[0-9]{1,4}")
# `atb_foo-1.0.dist-info`, `atb_foo.egg-info`, `atb_foo-1.0-py3.12.egg-info`.
_FOLDER = re.compile(r"(?P<name>.+?)(-(?P<version>[^-]+))?(-py[\d.]+)?\.(dist|egg)-info", re.IGNORECASE)


@dataclass(frozen=True)
class Installed:
    """Describes an installed distribution that extends `atb_core`, or would if its metadata were readable.

    Attributes:
        distribution: its name in its author's spelling.
        path: directory or file of its metadata.
        entries: its entry points in the groups of `atb_core`.
        requires: its requirements, as in `Requires-Dist`.
        api_versions: the API versions it is written for; empty if it names none.
        problem: what is wrong with its metadata, a sentence; `None` if nothing is.
        fix: the next step, if there is a problem.
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
        return f"{self.distribution} {self.version}".rstrip()

    @property
    def key(self) -> str:
        """The normalized name, by which distributions are compared."""
        return normalized_name(self.distribution)

    def owner(self, entry: Entry) -> Owner:
        """Returns it as the owner of what an entry point contributes."""
        return Owner(self.distribution, self.version, self.path, entry.target, entry.module)

    @property
    def model_types(self) -> tuple[str, ...]:
        """The model types that its entry points claim to serve."""
        return tuple(sorted({entry.name for entry in self.entries if entry.group in (ROUTERS, CONFIGS, MODELS)}))

    @property
    def hook_modules(self) -> tuple[str, ...]:
        """The modules in which it implements hooks."""
        return tuple(entry.module for entry in self.entries if entry.group == HOOKS)


@dataclass(frozen=True)
class _Copy:
    """A metadata directory or file, with the name and version that its own name gives."""

    path: Path
    name: str
    version: str

    @property
    def key(self) -> str:
        return normalized_name(self.name)

    @property
    def ours_by_name(self) -> bool:
        return self.key.startswith("atb-") and self.key != _CORE


class Environment:
    """Holds what is installed on a search path.

    Args:
        path: directories, as in `sys.path`.
    """

    def __init__(self, path: Iterable[str]) -> None:
        self._copies: dict[str, list[_Copy]] = {}
        #: The entry_points.txt of distributions of any kind that are not UTF-8.
        self.undecodable: list[Path] = []
        for copy in _copies_on(path):
            self._copies.setdefault(copy.key, []).append(copy)
        plugins = (_plugin(copies, self.undecodable) for copies in self._copies.values())
        #: The distributions that extend `atb_core`, by name.
        self.installed = tuple(sorted((one for one in plugins if one is not None), key=lambda one: one.key))

    def version(self, name: str) -> str | None:
        """Returns the version of a distribution; `None` if it is not installed or gives none."""
        copies = self._copies.get(normalized_name(name))
        return (copies[0].version or _headers(copies[0])[0].version or None) if copies else None

    def __contains__(self, name: str) -> bool:
        return normalized_name(name) in self._copies


@Once
def environment() -> Environment:
    """Returns what is installed on `sys.path`, scanned once."""
    return Environment(sys.path)


@Once
def installed() -> tuple[Installed, ...]:
    """Returns the distributions that extend `atb_core`, by name."""
    return environment().installed


def _copies_on(path: Iterable[str]) -> Iterator[_Copy]:
    """Yields every metadata directory or file, in the order in which Python finds them."""
    seen = set()
    for root in path:
        try:
            status = os.stat(root or ".")
            # One directory may be on the path twice, or under two names (lib and lib64).
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            names = os.listdir(root or ".")
        except OSError:
            continue
        for name in names:
            is_egg = name.lower() == "egg-info" and root.lower().endswith(".egg")
            if match := _FOLDER.fullmatch(f"{Path(root).stem}.egg-info" if is_egg else name):
                yield _Copy(Path(root, name), match["name"], match["version"] or "")


def _plugin(copies: list[_Copy], undecodable: list[Path]) -> Installed | None:
    """Returns the plugin that the copies of one distribution are, the first being the one that Python uses."""
    first, *others = copies
    paths = tuple(copy.path for copy in others)
    if plugin := _read(first, undecodable):
        return replace(plugin, shadowed=paths)
    # Entry points behind a copy without any: the old metadata wins, and the plugin is invisible.
    for copy in others:
        plugin = _read(copy, undecodable)
        if plugin is not None and plugin.entries:
            return replace(
                plugin,
                problem=f"{first.path} comes first on sys.path and has no entry points, which hides this copy",
                fix=f"Remove {first.path}, which is stale, or take its directory off sys.path.",
                shadowed=tuple(path for path in paths if path != copy.path),
            )
    return None


def _read(copy: _Copy, undecodable: list[Path]) -> Installed | None:
    """Returns the plugin: it has entries in the groups, or is called atb-... and is unreadable. Else returns `None`."""
    path = copy.path / "entry_points.txt"
    data, problem = _bytes(path)
    if data is not None and decoded(data, str(path))[1]:
        undecodable.append(path)
    if not copy.ours_by_name and (data is None or _MARK not in data):
        return None
    entries: tuple[Entry, ...] = ()
    if data is not None:
        entries, problem = parse_entry_points(data, GROUPS, "its entry_points.txt")
    if not entries and not copy.ours_by_name:
        return None
    headers, header_problem = _headers(copy)
    problem = problem or header_problem
    if not entries and problem is None:
        return None
    versions = [entry.name for entry in entries if entry.group == API]
    wrong = [name for name in versions if not _API_NUMBER.fullmatch(name)]
    if wrong and problem is None:
        problem = f"its entry point {printable(wrong[0], 60)!r} in {API} is no number of a version"
    name = headers.name if normalized_name(headers.name) == copy.key else copy.name.replace("_", "-")
    fix = f"pip install --force-reinstall --no-deps {name}"
    if copy.name.startswith("~"):
        # pip renames what it is about to replace; an interrupted run leaves it.
        problem, fix = "it is what an interrupted pip run left behind", f"Remove {copy.path}."
    return Installed(
        name,
        printable(headers.version or copy.version, 100),
        printable(headers.summary, 300),
        copy.path,
        entries,
        headers.requires,
        () if wrong else tuple(sorted(map(int, versions))),
        problem,
        fix if problem else None,
    )


def _bytes(path: Path) -> tuple[bytes | None, str | None]:
    """Returns a file's contents, or why it is unreadable; neither for a file that does not exist."""
    try:
        return read_file(path, _MAX_METADATA_BYTES, PluginError), None
    except PluginError as error:
        return None, error.message


def _headers(copy: _Copy) -> tuple[Headers, str | None]:
    """Returns the headers of a distribution, and what is wrong with them."""
    source = "METADATA" if copy.path.suffix.lower() == ".dist-info" else "PKG-INFO"
    data, problem = _bytes(copy.path if copy.path.is_file() else copy.path / source)
    if data is None:
        return Headers(), problem or f"it has no {source}"
    headers, problem = parse_headers(data, f"its {source}")
    if not headers.requires and (copy.path / "requires.txt").is_file():
        headers = replace(headers, requires=_egg_requires(copy.path))
    return headers, problem


def _egg_requires(path: Path) -> tuple[str, ...]:
    """Returns the requirements of a source tree, which older setuptools writes in a format of its own."""
    from importlib.metadata import PathDistribution  # takes 20 ms, for such a tree only

    try:
        return tuple(PathDistribution(path).requires or ())
    # Unreadable requirements are not checked.
    except (OSError, ValueError):
        return ()
