# SPDX-License-Identifier: Apache-2.0
"""Where driver, CANN and ATB are installed, and which versions they have."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from atb_core.ascend.machine import Machine
from atb_core.ascend.versions import Read, VersionFile, read_text, read_version, release, values

TOOLKIT_VARIABLES = ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME")
_ABI_FOLDER = re.compile(r"cxx_abi_([01])\Z")


@dataclass(frozen=True)
class Install:
    """An installation.

    Attributes:
        variable: the environment variable that names it; None if it was found without one.
    """

    path: Path
    variable: str | None = None


def find_driver(machine: Machine) -> Install | None:
    """The NPU driver's folder, by variable, by what its installer recorded, or at the usual place."""
    named = machine.variable("ASCEND_DRIVER_PATH")
    if named:
        # The folder of the driver itself, or the one that it is installed in.
        path = Path(named)
        return Install(path / "driver" if os.path.isdir(path / "driver") else path, "ASCEND_DRIVER_PATH")
    recorded = _recorded(machine.etc / "ascend_install.info", "driver_install_path_param")
    for root in (*recorded, *machine.roots):
        if os.path.isdir(root / "driver"):
            return Install(root / "driver")
    return None


def driver_version(path: Path) -> Read:
    return read_version([VersionFile(path / "version.info", ("package_version", "Version"))])


def find_toolkit(machine: Machine) -> Install | None:
    """The CANN toolkit: what the environment names, though it be wrong, or else what is found at the usual places."""
    for variable in TOOLKIT_VARIABLES:
        named = machine.variable(variable)
        if named:
            return Install(Path(named), variable)
    recorded = _recorded(machine.etc / "Ascend" / "ascend_cann_install.info", "install_path")
    for root in (*recorded, *machine.roots):
        for path in (root / "cann", *_newest(root, "cann-*"), root / "ascend-toolkit" / "latest"):
            if os.path.isdir(path):
                return Install(path)
        for path in _newest(root / "ascend-toolkit", "[0-9]*"):
            return Install(path)
    return None


def toolkit_version(path: Path) -> Read:
    """Since 8.5 a component's version.info has the release as its version, and lies in share/info."""
    packages = ("toolkit", "nnae", "nnrt")
    files = [
        VersionFile(file, ("version",))
        for package in packages
        for file in (*_glob(path, f"*-linux/ascend_{package}_install.info"), path / f"ascend_{package}_install.info")
    ]
    running = tuple(f"{part}_running_version" for part in ("toolkit", "runtime", "compiler"))
    files.append(VersionFile(path / "version.cfg", running))
    for folder in ("share/info/runtime", "share/info/compiler", "runtime", "compiler"):
        files.append(VersionFile(path / folder / "version.info", ("version_dir", "Version")))
    return read_version(files)


def find_atb(machine: Machine) -> Install | None:
    """ATB: what ATB_HOME_PATH names, though it be wrong, or else the newest .../nnal/atb/<version>."""
    named = machine.variable("ATB_HOME_PATH")
    if named:
        return Install(Path(named), "ATB_HOME_PATH")
    for root in machine.roots:
        for path in (root / "nnal/atb/latest", *_newest(root / "nnal/atb", "[0-9]*")):
            if os.path.isdir(path):
                return Install(path)
    return None


def atb_folder_abi(path: Path) -> int | None:
    """The C++ ABI that the name of ATB_HOME_PATH's folder gives, after links; None if it gives none."""
    for candidate in (path, _resolved(path)):
        match = _ABI_FOLDER.match(candidate.name)
        if match:
            return int(match[1])
    return None


def atb_version(path: Path) -> Read:
    """Of the installation that `path`, its folder or one of its .../atb/cxx_abi_N, belongs to."""
    folders = (path, path.parent, path.parent.parent)
    keys = ("Ascend-cann-atb", "Ascend-cann-atb Version", "Version")
    read = read_version(VersionFile(folder / "version.info", keys) for folder in folders)
    if read.version is None:
        for name in reversed(_resolved(path).parts[-4:]):
            if release(name):  # .../nnal/atb/8.5.0/atb/cxx_abi_1
                return Read(name, read.problems)
    return read


def set_env(install: Path, levels: int = 1) -> Path | None:
    """The set_env.sh of an installation: in its folder or up to `levels` above."""
    for folder in (install, *install.parents[:levels]):
        if os.path.isfile(folder / "set_env.sh"):
            return folder / "set_env.sh"
    return None


def library(folder: Path, *names: str) -> Path | None:
    """The first of `names`, relative to `folder`, that is a file."""
    return next((path for name in names for path in _glob(folder, name) if os.path.isfile(path)), None)


def _recorded(file: Path, key: str) -> Iterator[Path]:
    """The folder that an installer wrote down."""
    try:
        value = values(read_text(file)).get(key)
    except OSError:
        return
    if value:
        yield Path(value)


def _newest(folder: Path, pattern: str) -> list[Path]:
    def version(path: Path) -> tuple[int, ...]:
        return tuple(int(number) for number in re.findall(r"\d+", path.name))

    return sorted((path for path in _glob(folder, pattern) if os.path.isdir(path)), key=version, reverse=True)


def _glob(folder: Path, pattern: str) -> list[Path]:
    """What is there and may be seen; unlike Path.glob, no folder makes it raise."""
    return sorted(Path(name) for name in glob.glob(f"{glob.escape(str(folder))}/{pattern}"))


def _resolved(path: Path) -> Path:
    """Without links; unlike Path.resolve, a loop of them does not make it raise."""
    return Path(os.path.realpath(path))
