# SPDX-License-Identifier: Apache-2.0
"""Finds the family that serves a `model_type`; implements `models.families.Families`.

A family is a package with entry points in three groups, all named by the `model_type` that they serve:
`atb_core.routers` (required), `atb_core.configs` and `atb_core.models`. Lists and decisions come from package metadata;
a family's code is imported only when that family is asked for, so a broken package harms no other.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from atb_core.errors import PluginError
from atb_core.names import normalized_name
from atb_core.plugins import loader
from atb_core.plugins.admission import check_names, refusal, warn_once
from atb_core.plugins.once import Once
from atb_core.plugins.records import Family, Refusal, Resolution, Status, records
from atb_core.plugins.scan import CONFIGS, MODELS, ROUTERS, Entry, Installed, installed
from atb_core.plugins.unknown import unknown_model
from atb_core.settings import settings

__all__ = ["CONFIGS", "MODELS", "ROUTERS", "Family", "FamilyRegistry", "Resolution", "load", "registry"]

_GROUPS = (ROUTERS, CONFIGS, MODELS)


class FamilyRegistry:
    """Holds the families of the installed distributions."""

    def __init__(self) -> None:
        # By model type and the key of a plugin; its entry points for the type, by group.
        self._owners: dict[str, dict[str, Installed]] = {}
        self._objects: dict[tuple[str, str], dict[str, str]] = {}
        for plugin in installed():
            key = plugin.key
            for entry in plugin.entries:
                if entry.group in _GROUPS:
                    self._owners.setdefault(entry.name, {})[key] = plugin
                    self._objects.setdefault((entry.name, key), {})[entry.group] = entry.value

    def families(self) -> list[Family]:
        """Returns every family, sorted by model type and package; unusable ones give the reason. Imports nothing."""
        failures = {(record.path, record.target): record for record in records() if record.status is Status.FAILED}
        families = self._claims()
        for index, family in enumerate(families):
            for group in family.objects if family.status is Status.OK else ():
                if failure := failures.get((self._owner(family).path, _entry(family, group).target)):
                    reason = f"failed to import: {failure.reason}"
                    families[index] = replace(family, status=Status.FAILED, reason=reason, fix=failure.fix)
        return families

    def resolve(self, model_type: str, prefer: str | None = None) -> Resolution:
        """Returns who serves `model_type` and why; never raises because of a plugin. Imports nothing.

        Args:
            model_type: of the checkpoint's configuration.
            prefer: the distribution to use; by default the one that the settings name.
        """
        plugins = settings().plugins
        claims = tuple(self._claims([model_type]))
        source = "the caller"
        if prefer is None and model_type in plugins.prefer:
            prefer, source = plugins.prefer[model_type], plugins.prefer_sources[model_type]
        if prefer is not None and claims:
            return _preferred(model_type, claims, prefer, source)
        usable = [family for family in claims if family.status is Status.OK]
        if len(usable) > 1:
            return Resolution(model_type, claims, None, "several packages claim it", _conflict(model_type, usable))
        if not usable:
            error = unknown_model(model_type, claims, self._claims())
            return Resolution(model_type, claims, None, "no usable package serves it", error)
        return _only(model_type, claims, usable[0])

    def find(self, model_type: str, prefer: str | None = None) -> Family:
        """Returns the family that serves `model_type`. Arguments: see `resolve`.

        Raises:
            UnknownModelError: no installed package serves it, or none that can be used; gives the reason and what to
                install.
            PluginError: several packages claim it and no setting names one, or the named one cannot be used; or the
                settings are strict and some plugin cannot be used.
        """
        check_names()
        if settings().plugins.strict:
            self._check_all()
        resolution = self.resolve(model_type, prefer)
        if resolution.winner is None:
            assert resolution.error is not None
            raise resolution.error
        for other in resolution.passed_over:
            warn_once(f"{model_type} is served by {resolution.winner.package}: {other.package} {other.reason}")
        return resolution.winner

    def load(self, family: Family, group: str) -> Any:
        """Imports what `family` has in `group`, and nothing of any other package.

        With the router the rest of the family is checked too: its configuration is loaded, the module of its model
        class must exist, and parts without an entry point must come from the router. A family is complete or refused.

        Raises:
            PluginError: gives package, version, cause and next step.
        """
        value = self._load(family, group)
        if group == ROUTERS:
            base = sys.modules["atb_core.models.base.router"].BaseRouter
            if CONFIGS in family.objects:
                self._load(family, CONFIGS)
            elif value.get_config is base.get_config:
                raise _incomplete(family, CONFIGS, "get_config")
            if MODELS in family.objects:
                loader.check_module(self._owner(family), _entry(family, MODELS))
            elif value.get_model_cls is base.get_model_cls:
                raise _incomplete(family, MODELS, "get_model_cls")
        return value

    def _check_all(self) -> None:
        """Raises PluginError if a plugin is incompatible or damaged, and names all; ignores disabled ones."""
        refusals = [(plugin.package, refusal(plugin)) for plugin in installed()]
        broken = [(name, reason) for name, reason in refusals if reason and reason.status is not Status.DISABLED]
        if broken:
            (name, reason), *others = broken
            also = f"; also unusable: {', '.join(other for other, _ in others)}" if others else ""
            raise PluginError(f"the plugin {name} {reason.reason}{also} (ATB_STRICT)", hint=reason.fix)

    def _load(self, family: Family, group: str) -> Any:
        return loader.load_entry(self._owner(family), _entry(family, group))

    def _owner(self, family: Family) -> Installed:
        return self._owners[family.model_type][normalized_name(family.distribution)]

    def _claims(self, model_types: Iterable[str] | None = None) -> list[Family]:
        """Returns families, by default all, with their status by metadata: past failures must not change a choice."""
        refusals: dict[str, Refusal | None] = {}
        claims = []
        for model_type in sorted(self._owners) if model_types is None else model_types:
            for key, plugin in sorted(self._owners.get(model_type, {}).items()):
                if key not in refusals:
                    refusals[key] = refusal(plugin)
                claims.append(_family(model_type, plugin, self._objects[model_type, key], refusals[key]))
        return claims


def _family(model_type: str, plugin: Installed, objects: dict[str, str], refused: Refusal | None) -> Family:
    family = Family(model_type, plugin.distribution, plugin.version, plugin.summary, objects)
    if refused is None and ROUTERS not in objects:
        reason = f"has no router for {model_type}: it has no entry for it in {ROUTERS}"
        refused = Refusal(Status.FAILED, reason, f"pip install --upgrade {plugin.distribution}")
    return family if refused is None else replace(family, **vars(refused))


def _entry(family: Family, group: str) -> Entry:
    value = family.objects.get(group)
    if value is None:
        raise PluginError(
            f"{family.package} has nothing in the entry-point group {group!r} for model type {family.model_type!r}",
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
    matching = [family for family in claims if normalized_name(family.distribution) == normalized_name(prefer)]
    if not matching:
        others = " and ".join(family.package for family in claims)
        error = PluginError(
            f"{source} wants {model_type!r} served by {prefer}, and no such package is installed that serves it;"
            f" installed for it: {others}",
            hint=f"pip install {prefer}, or change that setting.",
        )
        return Resolution(model_type, claims, None, f"{source} names a package that does not serve it", error)
    family = matching[0]
    if family.status is not Status.OK:
        message = f"{source} wants {model_type!r} served by {family.package}, which {family.reason}"
        error = PluginError(message, hint=family.fix)
        return Resolution(model_type, claims, None, f"{source} names a package that cannot be used", error)
    return Resolution(model_type, claims, family, f"preferred by {source}")


def _conflict(model_type: str, usable: list[Family]) -> PluginError:
    first = usable[0].distribution
    return PluginError(
        f"model type {model_type!r} is claimed by several packages: {' and '.join(one.package for one in usable)}",
        hint=f'Choose one: {model_type} = "{first}" under [plugins.prefer] in {settings().path}, or'
        f" ATB_PLUGINS_PREFER={model_type}={first}; or uninstall the others.",
    )


@Once
def registry() -> FamilyRegistry:
    """Returns the registry of this process, scanned once."""
    return FamilyRegistry()


def model_types() -> list[str]:
    """Returns the model types that installed packages claim, usable or not."""
    return [family.model_type for family in registry().families()]


def owner_of(router: type) -> str | None:
    """Returns the distribution whose entry points name this router class; `None` if none or several do."""
    value = f"{router.__module__}:{router.__qualname__}"
    owners = {family.distribution for family in registry().families() if family.objects.get(ROUTERS) == value}
    return owners.pop() if len(owners) == 1 else None


def load(group: str, model_type: str, prefer: str | None = None) -> Any:
    """Returns what the family that serves `model_type` has in `group`; imports that family and no other."""
    return registry().load(registry().find(model_type, prefer), group)
