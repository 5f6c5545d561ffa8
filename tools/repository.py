# SPDX-License-Identifier: Apache-2.0
"""Lists the distributions of this repository: the core, the model families and the rest of `plugins/`."""

from __future__ import annotations

import sys
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
        return tomllib.loads((self.folder / "pyproject.toml").read_text(encoding="utf-8"))

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
    def wheel_prefix(self) -> str:
        """Returns the beginning of the file names of its wheels, up to the version."""
        return self.name.replace("-", "_") + "-"

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
    def extras(self) -> list[str]:
        """Returns the names of its extras."""
        return list(self.pyproject["project"].get("optional-dependencies", {}))

    def extra(self, name: str) -> list[str]:
        """Returns the requirements of the extra `name`; none if there is no such extra."""
        return list(self.pyproject["project"].get("optional-dependencies", {}).get(name, []))


def packages(root: Path = ROOT) -> list[Package]:
    """Returns every distribution of the repository, the core first."""
    return [Package(root), *(Package(path.parent) for path in sorted(root.glob("plugins/*/pyproject.toml")))]
