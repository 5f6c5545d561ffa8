# SPDX-License-Identifier: Apache-2.0
"""The machine as the checks see it; tests put another one in its place."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from atb_core.child import try_in_child

_LOAD = "import ctypes; ctypes.CDLL(argument)"
_IMPORT = "import importlib; importlib.import_module(argument)"


def package_version(distribution: str) -> str | None:
    """The version in a distribution's metadata; None if it is not installed or its metadata is damaged."""
    try:
        # Damaged metadata gives None where the annotation promises a string.
        return importlib.metadata.version(distribution) or None
    except (importlib.metadata.PackageNotFoundError, KeyError, ValueError, OSError):
        return None


def module_file(name: str) -> Path | None:
    """Where a module lies, without importing it (its parent packages are); None if there is none."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin else None


def load_library(path: Path) -> str | None:
    """Loads a shared library in a process of its own; None, or why it does not load."""
    return try_in_child(_LOAD, str(path))


def import_module(name: str) -> str | None:
    """Imports a module in a process of its own; None, or why it cannot be imported."""
    return try_in_child(_IMPORT, name)


def torch_abi() -> int | None:
    """`_GLIBCXX_USE_CXX11_ABI` of torch, by importing it."""
    try:
        import torch
    except Exception:  # a broken torch may raise anything; that it is broken is another check's to say
        return None
    return int(torch.compiled_with_cxx11_abi())


@dataclass(frozen=True)
class Machine:
    """Where the checks look.

    Attributes:
        root: where Ascend's packages are installed by default.
        home: the user's home, under which they may be installed, too.
        etc, dev: the system's folders.
        package_version: of a distribution's name.
        module_file: of a module's name.
        load_library, import_module: None, or why it fails.
        torch_abi: torch's C++ ABI by importing torch, for when its files do not tell.
    """

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    root: Path = Path("/usr/local/Ascend")
    home: Path = field(default_factory=lambda: Path(os.path.expanduser("~")))
    etc: Path = Path("/etc")
    dev: Path = Path("/dev")
    package_version: Callable[[str], str | None] = package_version
    module_file: Callable[[str], Path | None] = module_file
    load_library: Callable[[Path], str | None] = load_library
    import_module: Callable[[str], str | None] = import_module
    torch_abi: Callable[[], int | None] = torch_abi

    def variable(self, name: str) -> str | None:
        """An environment variable; None also when it is empty."""
        return self.environ.get(name) or None

    @property
    def roots(self) -> tuple[Path, ...]:
        """The folders that Ascend's packages may have been installed in."""
        return (self.root, self.home / "Ascend")
