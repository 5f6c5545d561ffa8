# SPDX-License-Identifier: Apache-2.0
"""Results of examinations: of the machine (`atb doctor`) and of plugins (`atb plugins doctor`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

__all__ = ["Finding", "Level", "any_error"]


class Level(str, Enum):
    """Rates a finding: only an error means that something which is here cannot work."""

    OK = "ok"
    ABSENT = "absent"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """Describes one part of what was examined.

    Attributes:
        check: a word for programs, such as `driver` or `import`.
        message: what is here: versions and paths, or that nothing is; or, about a plugin, what is wrong and why.
        cause: what is wrong with a part that is here and why; `None` if nothing is, or if the message says it.
        fix: the next step; `None` if there is none.
        blocks: the backends that cannot be used as long as this is so.
        detail: the traceback, for an import that failed.
    """

    check: str
    level: Level
    message: str
    cause: str | None = None
    fix: str | None = None
    blocks: tuple[str, ...] = ()
    detail: str | None = None


def any_error(findings: Iterable[Finding]) -> bool:
    """Returns true if a finding is an error."""
    return any(finding.level is Level.ERROR for finding in findings)
