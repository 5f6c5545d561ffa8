# SPDX-License-Identifier: Apache-2.0
"""The registry of model families: who serves which `model_type`. Implements `models.families.Families`.

A family is a package with entry points in three groups, all named by the `model_type` they serve:
`atb_core.routers` (required), `atb_core.configs` and `atb_core.models`. Everything that is listed or decided comes
from package metadata; a family's code is imported only when that family is asked for, so a broken package harms
nobody but itself.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from atb_core.errors import PluginError
from atb_core.names import normalized_name
from atb_core.plugins import loader
from atb_core.plugins.admission import Refusal, check_names, refusal, tell_once
from atb_core.plugins.family import Family, Resolution
from atb_core.plugins.once import Once
from atb_core.plugins.records import LoadRecord, Status, records
from atb_core.plugins.scan import CONFIGS, MODELS, ROUTERS, Entry, Environment, Installed, environment
from atb_core.plugins.unknown import unknown_model
from atb_core.settings import settings

__all__ = ["CONFIGS", "MODELS", "ROUTERS", "Family", "FamilyRegistry", "Resolution", "config_for", "families"]
__all__ += ["model_for", "registry", "router_for"]

_GROUPS = (ROUTERS, CONFIGS, MODELS)


class FamilyRegistry:
    """The families of the installed distributions.

    Args:
        among: what is installed; by default on `sys.path`.
    """

    def __init__(self, among: Environment | None = None) -> None:
        self._among = environment() if among is None else among
        self._owners: dict[tuple[str, str], Installed] = {}
        for one in self._among.installed:
            for entry in one.entries:
                if entry.group in _GROUPS:
                    self._owners[entry.name, one.key] = one

    def families(self) -> list[Family]:
        """Every family, sorted by model type and package; those that cannot be used say why. Imports nothing."""
        failed = {(record.path, record.target): record for record in records() if record.status is Status.FAILED}
        return [_with_failure(family, self._owner(family), failed) for family in self._claims()]

    def resolve(self, model_type: str, prefer: str | None = None) -> Resolution:
        """Who serves `model_type` and why; never raises for a plugin's sake. Imports nothing.

        Args:
            prefer: the distribution that shall serve it; by default what the settings say.
        """
        plugins = settings().plugins
        claims = tuple(family for family in self._claims() if family.model_type == model_type)
        source = "the caller"
        if prefer is None and model_type in plugins.prefer:
            prefer, source = plugins.prefer[model_type], plugins.prefer_sources[model_type]
        if prefer is not None and claims:
            return _preferred(model_type, claims, prefer, source)
        usable = [family for family in claims if family.status is Status.OK]
        if len(usable) > 1:
            return Resolution(model_type, claims, None, "several packages claim it", _conflict(model_type, usable))
        if not usable:
            error = unknown_model(model_type, claims, self._claims(), self._among)
            return Resolution(model_type, claims, None, "no usable package serves it", error)
        return _only(model_type, claims, usable[0])

    def find(self, model_type: str, prefer: str | None = None) -> Family:
        """The family that serves `model_type`.

        Args:
            prefer: the distribution that shall serve it; by default what the settings say.

        Raises:
            UnknownModelError: no installed package serves it, or none that can be used; says which of the two, why,
                and what to install.
            PluginError: several packages claim it and nothing says which to take, or the one to take cannot be used;
                or the settings are strict and some plugin cannot be used.
        """
        check_names(self._among)
        if settings().plugins.strict:
            self.check()
        found = self.resolve(model_type, prefer)
        if found.winner is None:
            assert found.error is not None
            raise found.error
        for other in found.passed_over:
            tell_once(f"{model_type} is served by {found.winner.package}: {other.package} {other.reason}")
        return found.winner

    def check(self) -> None:
        """Raises PluginError for the first plugin that is incompatible or damaged, names all; disabled ones are not."""
        broken = []
        for one in self._among.installed:
            reason = refusal(one, self._among)
            if reason is not None and reason.status is not Status.DISABLED:
                broken.append((one, reason))
        if broken:
            one, reason = broken[0]
            more = ", ".join(other.package for other, _ in broken[1:])
            also = f"; also unusable: {more}" if more else ""
            raise PluginError(f"the plugin {one.package} {reason.reason}{also} (ATB_STRICT)", hint=reason.fix)

    def load(self, family: Family, group: str) -> Any:
        """Imports what `family` offers in `group`, and nothing of any other package.

        With the router the rest of the family is looked at too: its configuration is loaded, the module of its model
        class must exist, and what has no entry point must come from the router. So a family is whole or refused.

        Raises:
            PluginError: names the package, its version, the cause and the next step.
        """
        value = self._load(family, group)
        if group == ROUTERS:
            self._check_whole(family, value)
        return value

    def owner_of(self, router: type) -> str | None:
        """The distribution whose entry points name this router class; `None` if none or several do."""
        value = f"{router.__module__}:{router.__qualname__}"
        owners = {family.distribution for family in self._claims() if family.objects.get(ROUTERS) == value}
        return owners.pop() if len(owners) == 1 else None

    def _load(self, family: Family, group: str) -> Any:
        return loader.load_entry(self._owner(family), _entry(family, group), self._among)

    def _check_whole(self, family: Family, router: Any) -> None:
        base = sys.modules["atb_core.models.base.router"].BaseRouter
        if CONFIGS in family.objects:
            self._load(family, CONFIGS)
        elif router.get_config is base.get_config:
            raise _incomplete(family, CONFIGS, "get_config")
        if MODELS in family.objects:
            loader.check_module(self._owner(family), _entry(family, MODELS), self._among)
        elif router.get_model_cls is base.get_model_cls:
            raise _incomplete(family, MODELS, "get_model_cls")

    def _owner(self, family: Family) -> Installed:
        return self._owners[family.model_type, normalized_name(family.distribution)]

    def _claims(self) -> list[Family]:
        """Every family with the status that metadata and settings give it: what decides must not depend on the past."""
        refusals = {one.key: refusal(one, self._among) for one in self._owners.values()}
        return [
            _family(model_type, self._owners[model_type, key], refusals[key])
            for model_type, key in sorted(self._owners)
        ]


def _family(model_type: str, one: Installed, reason: Refusal | None) -> Family:
    objects = {entry.group: entry.value for entry in one.entries if entry.name == model_type and entry.group in _GROUPS}
    if reason is None and ROUTERS not in objects:
        reason = Refusal(
            Status.FAILED,
            f"offers no router for {model_type}: it has no entry for it in {ROUTERS}",
            f"pip install --upgrade {one.distribution}",
        )
    family = Family(model_type, one.distribution, one.version, one.summary, objects)
    return family if reason is None else replace(family, status=reason.status, reason=reason.reason, fix=reason.fix)


def _with_failure(family: Family, one: Installed, failed: Mapping[tuple[Path, str], LoadRecord]) -> Family:
    """The family with what became of loading it in this process."""
    if family.status is not Status.OK:
        return family
    for group in family.objects:
        record = failed.get((one.path, _entry(family, group).target))
        if record is not None:
            return replace(family, status=Status.FAILED, reason=f"failed to import: {record.reason}", fix=record.fix)
    return family


def _entry(family: Family, group: str) -> Entry:
    value = family.objects.get(group)
    if value is None:
        raise PluginError(
            f"{family.package} offers nothing in the entry-point group {group!r} for model type {family.model_type!r}",
            hint=f"It needs {family.model_type} = 'module:Class' under [project.entry-points.{group!r}].",
        )
    return Entry(group, family.model_type, value)


def _incomplete(family: Family, group: str, method: str) -> PluginError:
    return PluginError(
        f"the plugin {family.package} serves {family.model_type!r} only in part: it has no entry for it in {group},"
        f" and its router does not override {method}",
        hint=f"pip install --upgrade {family.distribution}",
    )


def _only(model_type: str, claims: tuple[Family, ...], winner: Family) -> Resolution:
    others = [family for family in claims if family is not winner]
    if not others:
        return Resolution(model_type, claims, winner, "the only package that serves it")
    causes = "; ".join(f"{family.package} {family.reason}" for family in others)
    passed_over = tuple(family for family in others if family.status is not Status.DISABLED)
    return Resolution(model_type, claims, winner, f"the only one that can be used: {causes}", passed_over=passed_over)


def _preferred(model_type: str, claims: tuple[Family, ...], prefer: str, source: str) -> Resolution:
    chosen = [family for family in claims if normalized_name(family.distribution) == normalized_name(prefer)]
    if not chosen:
        others = " and ".join(family.package for family in claims)
        error = PluginError(
            f"{source} wants {model_type!r} served by {prefer}, and no such package is installed that serves it;"
            f" installed for it: {others}",
            hint=f"pip install {prefer}, or change that setting.",
        )
        return Resolution(model_type, claims, None, f"{source} names a package that does not serve it", error)
    family = chosen[0]
    if family.status is not Status.OK:
        error = PluginError(
            f"{source} wants {model_type!r} served by {family.package}, which {family.reason}", hint=family.fix
        )
        return Resolution(model_type, claims, None, f"{source} names a package that cannot be used", error)
    return Resolution(model_type, claims, family, f"preferred by {source}")


def _conflict(model_type: str, usable: list[Family]) -> PluginError:
    owners = " and ".join(family.package for family in usable)
    first = usable[0].distribution
    return PluginError(
        f"model type {model_type!r} is claimed by several packages: {owners}",
        hint=f'Say which one: {model_type} = "{first}" under [plugins.prefer] in {settings().path}, or'
        f" ATB_PLUGINS_PREFER={model_type}={first}; or uninstall the others.",
    )


@Once
def registry() -> FamilyRegistry:
    """The registry of this process, scanned once; `registry.cache_clear()` makes the next call scan again."""
    return FamilyRegistry()


def model_types() -> list[str]:
    """Returns the model types that installed packages claim, usable or not."""
    return [family.model_type for family in families()]


def package_for(model_type: str) -> str:
    """Returns name and version of the package that serves `model_type`; raises as `FamilyRegistry.find`."""
    return registry().find(model_type).package


def owner_of(router: type) -> str | None:
    """Returns the distribution whose entry points name this router class; `None` if none or several do."""
    return registry().owner_of(router)


def families() -> list[Family]:
    """Every installed family, from metadata alone; those that cannot be used say why."""
    return registry().families()


def router_for(model_type: str, prefer: str | None = None) -> Any:
    """The router class of the family that serves `model_type`; imports that family and no other."""
    return _load(model_type, ROUTERS, prefer)


def config_for(model_type: str, prefer: str | None = None) -> Any:
    """The configuration class of the family that serves `model_type`."""
    return _load(model_type, CONFIGS, prefer)


def model_for(model_type: str, prefer: str | None = None) -> Any:
    """The decorated model class of the family that serves `model_type`."""
    return _load(model_type, MODELS, prefer)


def _load(model_type: str, group: str, prefer: str | None) -> Any:
    found = registry()
    return found.load(found.find(model_type, prefer), group)
