# SPDX-License-Identifier: Apache-2.0
"""What an examination of the machine consists of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Level(str, Enum):
    """How a part of the machine is: only an error means that something which is here cannot work."""

    OK = "ok"
    ABSENT = "absent"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """One part of the machine and what there is to say about it.

    Attributes:
        check: a word for programs, such as `driver` or `abi`.
        found: what was found, or that nothing was; versions and paths.
        cause: what is wrong and why; None if nothing is.
        fix: the next step; None if there is none.
        blocks: the backends that cannot be used as long as this is so.
    """

    check: str
    level: Level
    found: str
    cause: str | None = None
    fix: str | None = None
    blocks: tuple[str, ...] = ()
