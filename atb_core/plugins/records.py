# SPDX-License-Identifier: Apache-2.0
"""Records the outcome of every attempt to use a plugin.

A plugin that is refused or fails harms no other, and leaves a record: its version, its path, the reason, the next step.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path


class Status(str, Enum):
    """Rates a plugin or an attempt to load it."""

    #: Usable; or, in a record, imported and checked.
    OK = "ok"
    #: A setting leaves it out.
    DISABLED = "disabled"
    #: Its API version, or a version it requires, is not what is installed.
    INCOMPATIBLE = "incompatible"
    #: Its metadata is damaged, its import failed, or an entry point leads to something else than its group needs.
    FAILED = "failed"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Refusal:
    """Says why a plugin is not used.

    Attributes:
        reason: the end of a sentence after the package's name: `is disabled by ATB_NO_PLUGINS`.
        fix: the next step.
    """

    status: Status
    reason: str
    fix: str


@dataclass(frozen=True)
class LoadRecord:
    """Holds the outcome of one attempt to load one entry point in this process.

    Attributes:
        path: directory or file of the distribution's metadata.
        target: the entry point, `atb_core.routers: qwen2 = atb_qwen2.router:Qwen2Router`.
        reason: one sentence; empty for the status `ok`.
        fix: the next step, for example a `pip install` line.
        exception: the traceback, if something was raised.
        import_seconds: duration of the import; `None` if nothing was imported.
        imported_torch: true if this import was the first to import torch.
    """

    distribution: str
    version: str
    path: Path
    target: str
    status: Status
    reason: str = ""
    fix: str | None = None
    exception: str | None = None
    import_seconds: float | None = None
    imported_torch: bool = False


_records: list[LoadRecord] = []


def add_record(record: LoadRecord) -> None:
    """Appends to the records of this process."""
    _records.append(record)


def records() -> tuple[LoadRecord, ...]:
    """Returns every attempt of this process in order: the first success of an entry point, and each failure."""
    return tuple(_records)
