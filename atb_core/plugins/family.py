# SPDX-License-Identifier: Apache-2.0
"""Records of the registry: a family, and the choice of the family that serves a model type."""

from __future__ import annotations

from dataclasses import dataclass, field

from atb_core.errors import PluginError
from atb_core.plugins.records import Status


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
