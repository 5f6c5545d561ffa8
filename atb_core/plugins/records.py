# SPDX-License-Identifier: Apache-2.0
"""Records of plugins: the families that they bring, which of them serves a model, and every attempt to use one.

A plugin that is refused or fails harms no other, and leaves a record: its version, its path, the reason, the next step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from atb_core.errors import PluginError


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
class Family:
    """Describes one `model_type` as one package serves it.

    Attributes:
        objects: entry-point group to `module:Class`.
        status: by metadata and settings and, if this process has tried to load the family, by the outcome.
        reason: why the status is not `ok`, as the end of a sentence about the package.
        fix: the next step.
    """

    model_type: str
    distribution: str
    version: str
    summary: str = ""
    objects: dict[str, str] = field(default_factory=dict, hash=False)
    status: Status = Status.OK
    reason: str = ""
    fix: str | None = None

    @property
    def package(self) -> str:
        """Name and version, for messages: `atb-foo 0.1.0`."""
        return f"{self.distribution} {self.version}".rstrip()


@dataclass(frozen=True)
class Resolution:
    """Names the family that serves a model type, and the reason for the choice.

    Attributes:
        candidates: every installed family that claims the type, usable or not.
        winner: the family that serves it; `None` if there is none.
        why: one sentence that names what decided.
        error: the error that `FamilyRegistry.find` raises without a winner.
        passed_over: broken or incompatible candidates, which would otherwise conflict with the winner.
    """

    model_type: str
    candidates: tuple[Family, ...]
    winner: Family | None
    why: str
    error: PluginError | None = None
    passed_over: tuple[Family, ...] = ()


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
