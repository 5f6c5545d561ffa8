# SPDX-License-Identifier: Apache-2.0
"""Defines the machine as the checks see it (tests replace it), and the findings that keep `atb` from being used."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from atb_ascend.findings import Finding, Level
from atb_core.child import try_in_child
from atb_core.distributions import version_of


def blocking(check: str, message: str, cause: str, fix: str | None, level: Level = Level.ERROR) -> Finding:
    """Returns a finding that keeps the backend `atb` from being used."""
    return Finding(check, level, message, cause, fix, ("atb",))


def tried(check: str, what: str, problem: str | None, fix: str, backend: str = "atb") -> Finding:
    """Returns the finding for a library or module that was loaded, or was not because of `problem`."""
    if problem is None:
        return Finding(check, Level.OK, f"{what} loads")
    return Finding(check, Level.ERROR, f"{what} does not load", problem, fix, (backend,))


def module_file(name: str) -> Path | None:
    """Returns the file of a module, `None` without one. Imports its parent packages, not the module."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin else None


def load_library(path: Path) -> str | None:
    """Loads a shared library in a child process; returns why it does not load, or `None`."""
    return try_in_child("import ctypes; ctypes.CDLL(argument)", str(path))


def import_module(name: str) -> str | None:
    """Imports a module in a child process; returns why it cannot be imported, or `None`."""
    return try_in_child("import importlib; importlib.import_module(argument)", name)


@dataclass(frozen=True)
class Machine:
    """Holds the places that the checks look at, and the functions with which they look.

    Attributes:
        root: where Ascend's packages are installed by default.
        home: the user's home, under which they may be installed, too.
        etc: `/etc`.
        dev: `/dev`.
        package_version: `version_of`; for the others see the functions of their names.
    """

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    root: Path = Path("/usr/local/Ascend")
    home: Path = field(default_factory=lambda: Path(os.path.expanduser("~")))
    etc: Path = Path("/etc")
    dev: Path = Path("/dev")
    package_version: Callable[[str], str | None] = version_of
    module_file: Callable[[str], Path | None] = module_file
    load_library: Callable[[Path], str | None] = load_library
    import_module: Callable[[str], str | None] = import_module

    def variable(self, name: str) -> str | None:
        """Returns an environment variable; `None` also if it is empty."""
        return self.environ.get(name) or None

    @property
    def roots(self) -> tuple[Path, ...]:
        """The folders that Ascend's packages may be installed in."""
        return (self.root, self.home / "Ascend")
