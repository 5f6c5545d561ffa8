# SPDX-License-Identifier: Apache-2.0
"""Lists the distributions of this repository: the core and each folder of `plugins/` with a pyproject.toml.

It is the only list: nox sessions, release checks and workflows read it. The import contracts of the root's
pyproject.toml cannot, and a test compares them with it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Package:
    """One distribution of the repository, described by the pyproject.toml in `folder`."""

    folder: Path

    @cached_property
    def pyproject(self) -> dict[str, Any]:
        """Returns the parsed pyproject.toml."""
        data: dict[str, Any] = tomllib.loads((self.folder / "pyproject.toml").read_text(encoding="utf-8"))
        return data

    @property
    def name(self) -> str:
        """Returns the name of the distribution, for example `atb-qwen2`."""
        return str(self.pyproject["project"]["name"])

    @property
    def version(self) -> str:
        """Returns the version of the distribution."""
        return str(self.pyproject["project"]["version"])

    @property
    def tag(self) -> str:
        """Returns the tag of the release of this version."""
        return f"{self.name}-v{self.version}"

    @property
    def module(self) -> str:
        """Returns the name under which its code is imported, for example `atb_qwen2`."""
        return self.name.replace("-", "_")

    @property
    def wheel_prefix(self) -> str:
        """Returns the beginning of the file names of its wheels, up to the version."""
        return f"{self.module}-"

    @property
    def compiled(self) -> bool:
        """Returns true if building it compiles C++."""
        return str(self.pyproject["build-system"]["build-backend"]).startswith("scikit_build_core")

    @property
    def family(self) -> bool:
        """Returns true if it is a model family: it registers a router."""
        return "atb_core.routers" in self.pyproject["project"].get("entry-points", {})

    @property
    def dependencies(self) -> list[str]:
        """Returns its requirements, as in pyproject.toml."""
        return list(self.pyproject["project"].get("dependencies", []))

    @property
    def tested(self) -> bool:
        """Returns true if it has tests of its own, in the folder `tests`."""
        return self.folder != ROOT and (self.folder / "tests").is_dir()

    @property
    def extras(self) -> list[str]:
        """Returns the names of its extras."""
        return list(self.pyproject["project"].get("optional-dependencies", {}))

    def extra(self, name: str) -> list[str]:
        """Returns the requirements of the extra `name`; none if there is no such extra."""
        return list(self.pyproject["project"].get("optional-dependencies", {}).get(name, []))

    def with_extras(self, *names: str) -> str:
        """Returns the requirement of the package with those of the extras `names` that it has."""
        known = ",".join(name for name in names if name in self.extras)
        return f"{self.name}[{known}]" if known else self.name


def packages(root: Path = ROOT) -> list[Package]:
    """Returns every distribution of the repository, the core first."""
    return [Package(root), *(Package(path.parent) for path in sorted(root.glob("plugins/*/pyproject.toml")))]


def required_name(requirement: str) -> str:
    """Returns the name of the distribution that a requirement names, without extras, versions and markers."""
    (name,) = re.findall(r"^[\w.-]+", requirement)
    return str(name)


def third_party(members: Sequence[Package]) -> list[str]:
    """Returns what `members` require of distributions outside of `members`."""
    ours = {package.name for package in members}
    lines = {line for package in members for line in package.dependencies}
    return sorted(line for line in lines if required_name(line) not in ours)


def closure(members: Iterable[Package], known: Sequence[Package]) -> list[Package]:
    """Returns `members`, and those of `known` that they, or these, require to run and for their tests."""
    found = list(members)
    for package in found:  # which grows meanwhile
        names = {required_name(line) for line in (*package.dependencies, *package.extra("test"))}
        found += [one for one in known if one.name in names and one not in found]
    return found


def newest_file(*paths: Path) -> Path:
    """Returns the file that was changed last among `paths` and what is in them, without what programs generate."""
    files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else (path,)) if file.is_file()]
    sources = [file for file in files if file.suffix not in {".pyc", ".so"}]
    return max(sources, key=lambda file: file.stat().st_mtime)
