# SPDX-License-Identifier: Apache-2.0
"""Runs the cases of a check and keeps the file with their results complete at every moment."""

from __future__ import annotations

import json
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from atb_cli.output import write_whole
from atb_core.errors import AtbError
from atb_testing.ascend.privacy import Anonymizer

SCHEMA = 1
#: passed; refused: the backend says by name that it cannot; failed: an error or a wrong result; skipped: not tried.
Status = Literal["passed", "refused", "failed", "skipped"]
_TRACEBACK_LINES = 30


@dataclass(frozen=True)
class Outcome:
    """Says how a case ended.

    Attributes:
        status: see `Status`.
        message: cause of any other status than `passed`; for a fault, the error that was asked for.
        figures: what was measured, by name with the unit.
    """

    status: Status
    message: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """Names something that is tried; `run` may raise anything."""

    group: str
    name: str
    run: Callable[[], Outcome]

    def __str__(self) -> str:
        return f"{self.group}: {self.name}"


class CheckReport:
    """Holds the results so far; the file is written before and after each case, so that a crash leaves its name.

    Args:
        path: where the file goes; it is replaced.
        about: versions and the like, which stand before the cases.
        anonymizer: what every text passes before it is written.

    Raises:
        AtbError: the file cannot be written.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], anonymizer: Anonymizer) -> None:
        self.path = path
        self.about = dict(about)
        self.anonymizer = anonymizer
        self.cases: list[dict[str, Any]] = []
        self.state = "running"
        self.current: str | None = None
        self._save()

    def run(self, case: Case) -> None:
        """Runs a case and records its outcome; only an interruption passes through."""
        self.current = str(case)
        self._save()
        begin = time.perf_counter()
        try:
            outcome = case.run()
        except Exception as error:
            outcome = Outcome("failed", described(error))
        seconds = round(time.perf_counter() - begin, 4)
        self.cases.append({"group": case.group, "name": case.name, "seconds": seconds, **asdict(outcome)})
        self.current = None
        self._save()

    def finish(self, state: Literal["complete", "interrupted"]) -> None:
        """Writes the file for the last time; `current` stays the case that was interrupted."""
        self.state = state
        self._save()

    @property
    def failed(self) -> list[dict[str, Any]]:
        """Returns the cases that failed."""
        return [case for case in self.cases if case["status"] == "failed"]

    def summary(self) -> list[str]:
        """Returns lines for a person, without private data."""
        lines = [str(self.about["device"])]
        if self.state != "complete":
            lines.append(f"PARTIAL: {self.state}" + (f" in {self.current}" if self.current else ""))
        for group in dict.fromkeys(case["group"] for case in self.cases):
            count = Counter(case["status"] for case in self.cases if case["group"] == group)
            lines.append(f"{group}: " + ", ".join(f"{number} {status}" for status, number in sorted(count.items())))
        for case in self.cases:
            if case["status"] == "failed":
                lines.append(f"FAILED {case['group']}: {case['name']}: {case['message'].splitlines()[0][:300]}")
            elif case["group"] == "benchmark" and case["status"] == "passed":
                figures = ", ".join(f"{value} {name}" for name, value in case["figures"].items())
                lines.append(f"{case['name']}: {figures}")
        text: list[str] = self.anonymizer.clean(lines)
        return text

    def _save(self) -> None:
        content = {
            "schema": SCHEMA,
            "state": self.state,
            "summary": self.summary(),
            "current": self.current,
            **self.about,
            "cases": self.cases,
        }
        text = json.dumps(self.anonymizer.clean(content), indent=1, ensure_ascii=False) + "\n"
        write_whole(self.path, text, "backslashreplace")


def described(error: BaseException) -> str:
    """Returns an error of ours with its hint, any other with the end of its traceback."""
    if isinstance(error, AtbError):
        return f"{type(error).__name__}: {error.message}" + (f" Hint: {error.hint}" if error.hint else "")
    lines = "".join(traceback.format_exception(error)).splitlines()
    return "\n".join([f"{type(error).__name__}: {error}", *lines[-_TRACEBACK_LINES:]])
