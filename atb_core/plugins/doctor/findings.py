# SPDX-License-Identifier: Apache-2.0
"""What a diagnosis consists of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from atb_core.plugins.records import Status


class Level(str, Enum):
    """How bad a finding is: only an error means that something does not work."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """One thing that is to be said about a plugin, or about the settings.

    Attributes:
        kind: a word for programs, such as `import` or `duplicate`; the checks' names.
        message: one sentence: what is wrong and why.
        fix: the next step, if there is one.
        detail: the traceback, for an import that failed.
    """

    level: Level
    kind: str
    message: str
    fix: str | None = None
    detail: str | None = None


@dataclass(frozen=True)
class PluginReport:
    """All that was found about one installed plugin.

    Attributes:
        path: where its metadata lies.
        status: `ok` unless an error was found, or the settings disable it.
        model_types: what its entry points claim to serve.
        import_seconds: of all its entry points together, without torch's own; None if they were not all imported.
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
        """Whether any finding is an error."""
        return any(finding.level is Level.ERROR for finding in self.findings)

    @property
    def warned(self) -> bool:
        """Whether any finding is a warning."""
        return any(finding.level is Level.WARNING for finding in self.findings)


@dataclass(frozen=True)
class Report:
    """Everything `atb plugins doctor` found.

    Attributes:
        general: findings about no single plugin: the settings, the environment.
    """

    plugins: tuple[PluginReport, ...]
    general: tuple[Finding, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether nothing is broken; warnings do not count."""
        return not any(plugin.broken for plugin in self.plugins) and not any(
            finding.level is Level.ERROR for finding in self.general
        )
