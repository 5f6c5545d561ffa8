# SPDX-License-Identifier: Apache-2.0
"""What became of every attempt to use something of a plugin: isolation with a memory.

A plugin that is refused or fails harms nobody but itself, and leaves a record that says which package it was, which
version, where it lies, why, and what to do next.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

__all__ = ["LoadRecord", "Status", "add_record", "clear_records", "records"]


class Status(str, Enum):
    """How a plugin stands."""

    #: Usable; or, in a record, imported and checked.
    OK = "ok"
    #: A setting leaves it out.
    DISABLED = "disabled"
    #: Its API version, or a version it requires, is not what is installed.
    INCOMPATIBLE = "incompatible"
    #: Its metadata is damaged, its import failed, or what it offers is not what its entry point promises.
    FAILED = "failed"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class LoadRecord:
    """One attempt to load one entry point, in this process.

    Attributes:
        path: the directory or file that holds the distribution's metadata.
        target: the entry point, `atb_core.routers: qwen2 = atb_qwen2.router:Qwen2Router`.
        reason: one sentence; empty where the status is `ok`.
        fix: the next step, for example a `pip install` line.
        exception: the traceback as text, where something was raised.
        import_seconds: the time the import took; `None` where nothing was imported.
        imported_torch: whether this import was the first to import torch.
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
_lock = threading.Lock()


def add_record(record: LoadRecord) -> None:
    """Appends to the records of this process."""
    with _lock:
        _records.append(record)


def records() -> tuple[LoadRecord, ...]:
    """Every attempt of this process, in order. An entry point that loaded is recorded once, a failure each time."""
    with _lock:
        return tuple(_records)


def clear_records() -> None:
    """Forgets all records; for tests."""
    with _lock:
        _records.clear()
