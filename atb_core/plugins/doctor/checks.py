# SPDX-License-Identifier: Apache-2.0
"""What can be said about a plugin without importing it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator

from atb_core.findings import Finding, Level
from atb_core.names import normalized_name
from atb_core.plugins.admission import refusal
from atb_core.plugins.records import Status
from atb_core.plugins.registry import registry
from atb_core.plugins.scan import API, Environment, Installed

_EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")


def check_metadata(plugin: Installed, among: Environment) -> Iterator[Finding]:
    """Everything that the metadata of one plugin tells."""
    refused = refusal(plugin, among)
    if refused is not None:
        level = Level.NOTE if refused.status is Status.DISABLED else Level.ERROR
        yield Finding(refused.status.value, level, f"it {refused.reason}", fix=refused.fix)
    yield from _copies(plugin)
    yield from _families(plugin)
    if plugin.problem is None and not plugin.api_versions:
        yield Finding(
            "api",
            Level.WARNING,
            "it does not say which version of the plugin API it is written for, so version 1 is assumed",
            fix=f"""Its author adds 1 = "{_import_package(plugin)}" under [project.entry-points."{API}"].""",
        )
    yield from _extras(plugin, among)


def _copies(plugin: Installed) -> Iterator[Finding]:
    """Further copies of one distribution; that a copy hides this one is a problem of the metadata already."""
    if plugin.shadowed:
        others = ", ".join(map(str, plugin.shadowed))
        yield Finding(
            "duplicate",
            Level.WARNING,
            f"its metadata is on the import path more than once: {plugin.path} is used, {others} is not",
            fix=f"Remove what is stale: pip uninstall {plugin.distribution}, until none is left, and install it again.",
        )


def _families(plugin: Installed) -> Iterator[Finding]:
    if refusal(plugin) is None:
        for family in registry().families():
            if normalized_name(family.distribution) == plugin.key and family.status is not Status.OK:
                yield Finding("incomplete", Level.ERROR, f"it {family.reason}", fix=family.fix)
    if plugin.problem is None and not plugin.model_types and not plugin.hook_modules:
        yield Finding("empty", Level.WARNING, "it offers neither a model family nor hooks")


def _import_package(plugin: Installed) -> str:
    modules = [entry.module.partition(".")[0] for entry in plugin.entries]
    return modules[0] if modules else plugin.key.replace("-", "_")


def _extras(plugin: Installed, among: Environment) -> Iterator[Finding]:
    missing = {}
    for extra in sorted({match for text in plugin.requires for match in _EXTRA.findall(text)}):
        absent = sorted(set(_absent(plugin.requires, extra, among)))
        if absent:
            missing[extra] = absent
    if missing:
        listed = "; ".join(f"{extra} (needs {', '.join(names)})" for extra, names in missing.items())
        install = shlex.quote(f"{plugin.distribution}[{','.join(missing)}]")
        yield Finding(
            "extras", Level.NOTE, f"optional dependencies are not installed: {listed}", fix=f"pip install {install}"
        )


def _absent(requires: Iterable[str], extra: str, among: Environment) -> Iterator[str]:
    from packaging.requirements import InvalidRequirement, Requirement

    for text in requires:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue  # reported by the check of compatibility
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}) or not marker.evaluate({"extra": extra}):
            continue
        if requirement.name not in among:
            yield requirement.name
