# SPDX-License-Identifier: Apache-2.0
"""The registry of model families: who serves which `model_type`.

A family is a package with entry points in three groups, all named by the `model_type` they serve:
`atb_core.routers` (required), `atb_core.configs` and `atb_core.models`. Everything that is listed comes
from package metadata; a family's code is imported only when that family is asked for, so a broken
package harms nobody but itself.
"""

from __future__ import annotations

import functools
import importlib.metadata
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from atb_core.errors import PluginError, UnknownModelError

ROUTERS = "atb_core.routers"
CONFIGS = "atb_core.configs"
MODELS = "atb_core.models"
_GROUPS = (ROUTERS, CONFIGS, MODELS)


@dataclass(frozen=True)
class Family:
    """One `model_type` as one package serves it; nothing of the package has been imported.

    `objects` maps an entry-point group to `module:Class`.
    """

    model_type: str
    distribution: str
    version: str
    summary: str = ""
    objects: dict[str, str] = field(default_factory=dict, hash=False)

    @property
    def package(self) -> str:
        """Name and version, for messages: `atb-foo 0.1.0`."""
        return f"{self.distribution} {self.version}"

    def load(self, group: str) -> Any:
        """Imports what the family offers in `group`; PluginError names the package, its version and the cause."""
        value = self.objects.get(group)
        if value is None:
            raise PluginError(
                f"{self.package} offers nothing in the entry-point group {group!r} for model type {self.model_type!r}",
                hint=f"It needs {self.model_type} = 'module:Class' under [project.entry-points.{group!r}].",
            )
        entry = importlib.metadata.EntryPoint(self.model_type, value, group)
        try:
            return entry.load()
        # A plugin is foreign code: whatever its import raises, the report is the same.
        except Exception as error:
            raise PluginError(
                f"the plugin {self.package} failed to import {value!r}: {type(error).__name__}: {error}",
                hint=f"Upgrade or reinstall it (pip install --upgrade {self.distribution}), or remove it.",
            ) from error


class FamilyRegistry:
    """The families of a set of installed distributions."""

    def __init__(self, distributions: Iterable[importlib.metadata.Distribution]) -> None:
        self._families: dict[tuple[str, str], Family] = {}
        for distribution in distributions:
            self._scan(distribution)

    def _scan(self, distribution: importlib.metadata.Distribution) -> None:
        entries = [entry for entry in distribution.entry_points if entry.group in _GROUPS]
        if not entries:
            return
        name, version = distribution.metadata["Name"], distribution.version
        for entry in entries:
            key = (entry.name, re.sub(r"[-_.]+", "-", name).lower())
            known = self._families.get(key)
            if known is None:
                summary = distribution.metadata["Summary"] or "" if "Summary" in distribution.metadata else ""
                known = self._families[key] = Family(entry.name, name, version, summary)
            # The first copy of a distribution on sys.path is the one that Python imports.
            known.objects.setdefault(entry.group, entry.value)

    def families(self) -> list[Family]:
        """Every family, sorted by model type; two packages that claim one type are both listed."""
        return sorted(self._families.values(), key=lambda family: (family.model_type, family.distribution))

    def find(self, model_type: str, prefer: str | None = None) -> Family:
        """The family that serves `model_type`.

        Args:
            prefer: name of the distribution to take where several claim the type.

        Raises:
            UnknownModelError: no installed package serves it; lists those that are installed.
            PluginError: several packages claim it and `prefer` is none of them.
        """
        claims = [family for family in self.families() if family.model_type == model_type]
        if prefer is not None and len(claims) > 1:
            claims = [family for family in claims if family.distribution == prefer] or claims
        if len(claims) > 1:
            owners = " and ".join(family.package for family in claims)
            raise PluginError(
                f"model type {model_type!r} is claimed by several packages: {owners}",
                hint=f"Uninstall all but one of them (pip uninstall {claims[-1].distribution}).",
            )
        if not claims:
            raise _unknown(model_type, self.families())
        return claims[0]


def _unknown(model_type: str, installed: list[Family]) -> UnknownModelError:
    if installed:
        served = "installed families: " + ", ".join(f"{f.model_type} ({f.package})" for f in installed)
    else:
        served = "no family is installed"
    suggestion = re.sub(r"[^a-z0-9]+", "-", model_type.lower()).strip("-")
    return UnknownModelError(
        f"no installed package serves the model type {model_type!r}; {served}",
        hint=f"Install a package that serves it; by convention it is called atb-{suggestion}"
        f" (pip install atb-{suggestion}).",
    )


@functools.cache
def registry() -> FamilyRegistry:
    """The registry of this process, scanned once; `registry.cache_clear()` makes the next call scan again."""
    return FamilyRegistry(importlib.metadata.distributions())


def families() -> list[Family]:
    """Every installed family, from metadata alone."""
    return registry().families()


def router_for(model_type: str, prefer: str | None = None) -> Any:
    """The router class of the family that serves `model_type`; imports that family and no other."""
    return registry().find(model_type, prefer).load(ROUTERS)


def config_for(model_type: str, prefer: str | None = None) -> Any:
    """The configuration class of the family that serves `model_type`."""
    return registry().find(model_type, prefer).load(CONFIGS)


def model_for(model_type: str, prefer: str | None = None) -> Any:
    """The decorated model class of the family that serves `model_type`."""
    return registry().find(model_type, prefer).load(MODELS)
