# SPDX-License-Identifier: Apache-2.0
"""Finds where driver, CANN and ATB are installed, and reads their versions from files, damaged or not."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from atb_ascend.machine import Machine

TOOLKIT_VARIABLES = ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME")
_ABI_FOLDER = re.compile(r"cxx_abi_([01])\Z")
_MAX_BYTES = 1 << 20
#: A version, `None` if there is none, and why files that exist give none.
Read: TypeAlias = "tuple[str | None, list[str]]"
_RELEASE = re.compile(r"(\d{1,6})\.(\d{1,6})")
# `8.2.RC1`, `8.0.T63.B020`, `9.0.0-beta.2`; five numbers are a component's own numbering.
_VERSION = re.compile(r"(?:[A-Za-z]+-)?(\d{1,6}\.\d{1,6}[\w.+-]{0,60})\Z")
_INTERNAL = re.compile(r"\d+(\.\d+){4}")


def release(version: str | None) -> tuple[int, int] | None:
    """Returns major and minor number, by which packages are matched; `None` if `version` has none."""
    match = _RELEASE.match(version or "")
    return (int(match[1]), int(match[2])) if match else None


def read_version(files: Iterable[tuple[Path, Sequence[str]]]) -> Read:
    """Returns the version in the first file that has one, and a sentence for each damaged file before it.

    Args:
        files: each with the keys that the version may have, the best first; case does not matter.
    """
    problems: list[str] = []
    for path, keys in files:
        try:
            text = read_text(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(f"{path} cannot be read: {error.strerror or error}")
            continue
        version = _version(text, keys)
        if version is not None:
            return version, problems
        problems.append(f"{path} holds no version (looked for {', '.join(keys)})")
    return None, problems


def read_text(path: Path) -> str:
    """Returns the first MiB of a text file; bytes that are not UTF-8 become replacement characters. Raises OSError."""
    with path.open("rb") as file:
        return file.read(_MAX_BYTES).decode("utf-8", errors="replace")


def values(text: str) -> dict[str, str]:
    """Returns the values of `key=value` and `key : value` lines by lower-case key; the first of each counts."""
    by_key: dict[str, str] = {}
    for line in text.splitlines():
        if match := re.match(r"\s*([\w -]+?)\s*[=:]\s*(.*?)\s*\Z", line):
            by_key.setdefault(match[1].lower(), match[2])
    return by_key


def _version(text: str, keys: Sequence[str]) -> str | None:
    by_key = values(text)
    for key in keys:
        # `[component's own version:version of the release]`, or the release alone.
        match = _VERSION.match(by_key.get(key.lower(), "").strip("[]").rpartition(":")[2])
        if match and not _INTERNAL.match(match[1]):
            return match[1]
    return None


@dataclass(frozen=True)
class Install:
    """Describes an installation.

    Attributes:
        variable: the environment variable that names it; `None` if it was found without one.
    """

    path: Path
    variable: str | None = None


def find_driver(machine: Machine) -> Install | None:
    """Returns the NPU driver's folder: by variable, by the installer's record, or at the usual place."""
    if named := machine.variable("ASCEND_DRIVER_PATH"):
        # The folder of the driver itself, or the one that it is installed in.
        path = Path(named)
        return Install(path / "driver" if os.path.isdir(path / "driver") else path, "ASCEND_DRIVER_PATH")
    recorded = _recorded(machine.etc / "ascend_install.info", "driver_install_path_param")
    return _first_folder(root / "driver" for root in (*recorded, *machine.roots))


def find_toolkit(machine: Machine) -> Install | None:
    """Returns the CANN toolkit: the folder that a variable names, even a wrong one, else the first at usual places."""
    for variable in TOOLKIT_VARIABLES:
        if named := machine.variable(variable):
            return Install(Path(named), variable)
    recorded = _recorded(machine.etc / "Ascend" / "ascend_cann_install.info", "install_path")
    return _first_folder(
        path
        for root in (*recorded, *machine.roots)
        for path in (
            root / "cann",
            *_newest(root, "cann-*"),
            root / "ascend-toolkit" / "latest",
            *_newest(root / "ascend-toolkit", "[0-9]*"),
        )
    )


def toolkit_version(path: Path) -> Read:
    """Returns the version of the toolkit in `path`.

    Since 8.5 a component's version.info has the release as its version, and lies in share/info.
    """
    files = [
        (file, ("version",))
        for package in ("toolkit", "nnae", "nnrt")
        for file in (*_glob(path, f"*-linux/ascend_{package}_install.info"), path / f"ascend_{package}_install.info")
    ]
    running = [f"{part}_running_version" for part in ("toolkit", "runtime", "compiler")]
    folders = ("share/info/runtime", "share/info/compiler", "runtime", "compiler")
    components = [(path / folder / "version.info", ("version_dir", "Version")) for folder in folders]
    return read_version([*files, (path / "version.cfg", running), *components])


def find_atb(machine: Machine) -> Install | None:
    """Returns ATB: the folder that ATB_HOME_PATH names, even a wrong one, else the newest .../nnal/atb/<version>."""
    if named := machine.variable("ATB_HOME_PATH"):
        return Install(Path(named), "ATB_HOME_PATH")
    folders = [root / "nnal/atb" for root in machine.roots]
    return _first_folder(path for folder in folders for path in (folder / "latest", *_newest(folder, "[0-9]*")))


def atb_folder_abi(path: Path) -> int | None:
    """Returns the C++ ABI in the name of ATB_HOME_PATH's folder, after links; `None` if the name gives none."""
    for candidate in (path, _resolved(path)):
        if match := _ABI_FOLDER.match(candidate.name):
            return int(match[1])
    return None


def atb_version(path: Path) -> Read:
    """Returns the version of the installation that `path`, its folder or one of its .../atb/cxx_abi_N, belongs to."""
    keys = ("Ascend-cann-atb", "Ascend-cann-atb Version", "Version")
    version, problems = read_version((folder / "version.info", keys) for folder in (path, *path.parents[:2]))
    # .../nnal/atb/8.5.0/atb/cxx_abi_1
    names = reversed(_resolved(path).parts[-4:])
    return version or next((name for name in names if release(name)), None), problems


def set_env(install: Path) -> Path | None:
    """Returns the set_env.sh of an installation: in its folder or up to four above."""
    scripts = (folder / "set_env.sh" for folder in (install, *install.parents[:4]))
    return next((script for script in scripts if os.path.isfile(script)), None)


def library(folder: Path, *names: str) -> Path | None:
    """Returns the first of `names`, relative to `folder`, that is a file."""
    return next((path for name in names for path in _glob(folder, name) if os.path.isfile(path)), None)


def _first_folder(paths: Iterator[Path]) -> Install | None:
    return next((Install(path) for path in paths if os.path.isdir(path)), None)


def _recorded(file: Path, key: str) -> list[Path]:
    """Returns the folder that an installer wrote down, if any."""
    try:
        folder = values(read_text(file)).get(key)
    except OSError:
        return []
    return [Path(folder)] if folder else []


def _newest(folder: Path, pattern: str) -> list[Path]:
    def version(path: Path) -> tuple[int, ...]:
        return tuple(int(number) for number in re.findall(r"\d+", path.name))

    return sorted((path for path in _glob(folder, pattern) if os.path.isdir(path)), key=version, reverse=True)


def _glob(folder: Path, pattern: str) -> list[Path]:
    """Returns what matches and is visible; unlike Path.glob, no folder makes it raise."""
    return sorted(Path(name) for name in glob.glob(f"{glob.escape(str(folder))}/{pattern}"))


def _resolved(path: Path) -> Path:
    """Returns the path without links; unlike Path.resolve, a loop of them does not make it raise."""
    return Path(os.path.realpath(path))
