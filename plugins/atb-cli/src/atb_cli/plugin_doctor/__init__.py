# SPDX-License-Identifier: Apache-2.0
"""Finds out why a plugin does not work: by its metadata, then by imports of those that may be imported."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from atb_ascend.findings import Finding, Level, any_error
from atb_cli.plugin_doctor.checks import check_metadata
from atb_cli.plugin_doctor.imports import Imports, import_all
from atb_core.errors import PluginError
from atb_core.names import normalized_name
from atb_core.plugins.admission import refusal, unmatched_names
from atb_core.plugins.records import Status
from atb_core.plugins.registry import registry
from atb_core.plugins.scan import Installed, environment, installed
from atb_core.plugins.torch_import import protect_torch_import

__all__ = ["Finding", "Level", "PluginReport", "Report", "choose", "examine"]


@dataclass(frozen=True)
class PluginReport:
    """Holds the findings about one installed plugin.

    Attributes:
        path: directory or file of its metadata.
        status: `ok` unless an error was found, or the settings disable it.
        model_types: the model types that its entry points claim to serve.
        import_seconds: of all its entry points together, without torch's own; `None` if they were not all imported.
    """

    distribution: str
    version: str
    path: str
    status: Status
    model_types: tuple[str, ...]
    findings: tuple[Finding, ...]
    import_seconds: float | None = None

    @property
    def broken(self) -> bool:
        """True if a finding is an error."""
        return any_error(self.findings)

    @property
    def warned(self) -> bool:
        """True if a finding is a warning."""
        return any(finding.level is Level.WARNING for finding in self.findings)


@dataclass(frozen=True)
class Report:
    """Holds all findings of `atb plugins doctor`.

    Attributes:
        general: findings about no single plugin: the settings, the environment.
    """

    plugins: tuple[PluginReport, ...]
    general: tuple[Finding, ...] = ()

    @property
    def healthy(self) -> bool:
        """True if nothing is broken; warnings do not count."""
        return not any(plugin.broken for plugin in self.plugins) and not any_error(self.general)


def choose(names: Sequence[str]) -> tuple[Installed, ...]:
    """Returns the installed plugins with these names, all of them without a name.

    Raises:
        PluginError: no plugin has one of the names.
    """
    plugins = {plugin.key: plugin for plugin in installed()}
    for name in names:
        if normalized_name(name) not in plugins:
            close = difflib.get_close_matches(normalized_name(name), plugins, n=1)
            hint = f"Did you mean {close[0]}?" if close else "`atb plugins list` shows those that are."
            raise PluginError(f"no plugin called {name!r} is installed", hint=hint)
    wanted = {normalized_name(name) for name in names} or set(plugins)
    return tuple(plugin for key, plugin in plugins.items() if key in wanted)


def examine(
    plugins: Sequence[Installed],
    *,
    timeout: float,
    jobs: int = 2,
    progress: Callable[[int], object] = lambda count: None,
) -> Report:
    """Examines installed plugins. Imports happen in other processes only.

    Args:
        plugins: from `choose`.
        timeout: seconds that the import of one entry point may take.
        jobs: how many plugins are imported at a time.
        progress: called with the number of plugins that are done since its last call.
    """
    protect_torch_import()
    usable = [plugin for plugin in plugins if refusal(plugin) is None]
    progress(len(plugins) - len(usable))
    imported = {one.plugin.path: one for one in import_all(usable, timeout=timeout, jobs=jobs, progress=progress)}
    conflicts = _conflicts()
    reports = [_report(plugin, imported.get(plugin.path), conflicts) for plugin in plugins]
    settings = [Finding("settings", Level.WARNING, text, fix=hint) for text, hint in unmatched_names()]
    return Report(tuple(reports), (*settings, *_undecodable(), *_troubles(imported.values())))


def _report(plugin: Installed, imports: Imports | None, conflicts: dict[str, Finding]) -> PluginReport:
    findings = list(check_metadata(plugin))
    refused = refusal(plugin)
    if refused is None:
        findings += [finding for model_type, finding in conflicts.items() if model_type in plugin.model_types]
    if imports is not None:
        findings += imports.findings
    return PluginReport(
        distribution=plugin.distribution,
        version=plugin.version,
        path=str(plugin.path),
        status=refused.status if refused is not None else Status.FAILED if any_error(findings) else Status.OK,
        model_types=plugin.model_types,
        findings=tuple(findings),
        import_seconds=None if imports is None else imports.seconds,
    )


def _conflicts() -> dict[str, Finding]:
    """Returns, by model type, that several usable packages claim it and no setting decides."""
    conflicts = {}
    claims = [family.model_type for family in registry().families()]
    for model_type in {one for one in claims if claims.count(one) > 1}:
        resolution = registry().resolve(model_type)
        usable = [family for family in resolution.candidates if family.status is Status.OK]
        if resolution.error is not None and len(usable) > 1:
            error = resolution.error
            conflicts[model_type] = Finding("conflict", Level.ERROR, error.message, fix=error.hint)
    return conflicts


def _undecodable() -> Iterator[Finding]:
    """Yields each package that is no plugin and whose entry points are not UTF-8; a plugin's own finding says so."""
    plugins = {plugin.path for plugin in installed()}
    for path in environment().undecodable:
        if path.parent not in plugins:
            message = f"{path} is not UTF-8, and keeps torch from looking for device backends"
            fix = f"pip install --force-reinstall --no-deps {path.parent.name.partition('-')[0].replace('_', '-')}"
            yield Finding("metadata", Level.WARNING, message, fix=fix)


def _troubles(imports: Iterable[Imports]) -> Iterator[Finding]:
    """Yields once each reason why plugins could not be tried that is no fault of theirs."""
    for trouble in dict.fromkeys(one.trouble for one in imports if one.trouble is not None):
        names = [one.plugin.distribution for one in imports if one.trouble == trouble]
        message = f"{trouble}; so not all of {', '.join(names)} could be tried"
        yield Finding("environment", Level.ERROR, message, fix="`atb version` shows what is installed.")
