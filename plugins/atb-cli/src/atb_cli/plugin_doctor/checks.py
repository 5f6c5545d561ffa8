# SPDX-License-Identifier: Apache-2.0
"""Checks a plugin without importing it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

from atb_ascend.findings import Finding, Level
from atb_core.names import normalized_name
from atb_core.plugins.admission import parsed_requirement, refusal
from atb_core.plugins.diagnosis import EXTRA
from atb_core.plugins.records import Status
from atb_core.plugins.registry import registry
from atb_core.plugins.scan import API, Installed, environment


def check_metadata(plugin: Installed) -> Iterator[Finding]:
    """Yields the findings that follow from the metadata of one plugin."""
    refused = refusal(plugin)
    if refused is not None:
        level = Level.NOTE if refused.status is Status.DISABLED else Level.ERROR
        yield Finding(refused.status.value, level, f"it {refused.reason}", fix=refused.fix)
    # A copy that hides this one is a problem of the metadata already.
    if plugin.shadowed:
        others = ", ".join(map(str, plugin.shadowed))
        message = f"its metadata is on the import path more than once: {plugin.path} is used, {others} is not"
        fix = f"Remove what is stale: pip uninstall {plugin.distribution}, until none is left, and install it again."
        yield Finding("duplicate", Level.WARNING, message, fix=fix)
    for family in registry().families() if refused is None else ():
        if normalized_name(family.distribution) == plugin.key and family.status is not Status.OK:
            yield Finding("incomplete", Level.ERROR, f"it {family.reason}", fix=family.fix)
    if plugin.problem is None and not plugin.model_types and not plugin.hook_modules:
        # A package that names its API may be one that others import, such as atb-parallel.
        level = Level.NOTE if plugin.api_versions else Level.WARNING
        yield Finding("empty", level, "it has neither a model family nor hooks")
    if plugin.problem is None and not plugin.api_versions:
        package = plugin.entries[0].module.partition(".")[0] if plugin.entries else plugin.key.replace("-", "_")
        message = "it does not name the version of the plugin API that it is written for, so version 1 is assumed"
        fix = f"""Its author adds 1 = "{package}" under [project.entry-points."{API}"]."""
        yield Finding("api", Level.WARNING, message, fix=fix)
    yield from _extras(plugin)


def _extras(plugin: Installed) -> Iterator[Finding]:
    extras = sorted({match for text in plugin.requires for match in EXTRA.findall(text)})
    missing = {extra: absent for extra in extras if (absent := sorted(set(_absent(plugin.requires, extra))))}
    if missing:
        listed = "; ".join(f"{extra} (needs {', '.join(names)})" for extra, names in missing.items())
        install = shlex.quote(f"{plugin.distribution}[{','.join(missing)}]")
        message = f"optional dependencies are not installed: {listed}"
        yield Finding("extras", Level.NOTE, message, fix=f"pip install {install}")


def _absent(requires: Iterable[str], extra: str) -> Iterator[str]:
    for requirement in filter(None, map(parsed_requirement, requires)):  # the refusal names an invalid one
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}) or not marker.evaluate({"extra": extra}):
            continue
        if requirement.name not in environment():
            yield requirement.name
