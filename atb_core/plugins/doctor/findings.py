# SPDX-License-Identifier: Apache-2.0
"""Reports of the plugin doctor."""

from __future__ import annotations

from dataclasses import dataclass

from atb_core.findings import Finding, Level, any_error
from atb_core.plugins.records import Status


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
