# SPDX-License-Identifier: Apache-2.0
"""Results of examinations: of the machine (`atb doctor`) and of plugins (`atb plugins doctor`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Level(str, Enum):
    """Severity of a finding; an error means that an installed part cannot work."""

    OK = "ok"
    ABSENT = "absent"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """Result of the examination of one part.

    Attributes:
        check: identifier for programs, such as `driver` or `import`.
        level: severity.
        message: versions and paths of the part, or the fact that it is missing; for a plugin, its fault.
        cause: fault of an installed part; `None` if there is none, or if the message contains it.
        fix: the next step; `None` if there is none.
        blocks: backends that cannot be used because of the fault.
        detail: traceback of a failed import.
    """

    check: str
    level: Level
    message: str
    cause: str | None = None
    fix: str | None = None
    blocks: tuple[str, ...] = ()
    detail: str | None = None


def any_error(findings: Iterable[Finding]) -> bool:
    """Returns `True` if any finding is an error."""
    return any(finding.level is Level.ERROR for finding in findings)
