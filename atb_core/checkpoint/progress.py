# SPDX-License-Identifier: Apache-2.0
"""Shows progress in bytes: a bar on a terminal, silence everywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """Receives the progress of jobs that move bytes."""

    def start(self, what: str, total: int | None) -> None:
        """Begins a job: a few words for the user, and its size in bytes if it is known."""

    def advance(self, nbytes: int) -> None:
        """Counts `nbytes` more."""

    def finish(self) -> None:
        """Ends the job, whether it succeeded or not."""


class SilentProgress:
    """Shows nothing."""

    def start(self, what: str, total: int | None) -> None:
        pass

    def advance(self, nbytes: int) -> None:
        pass

    def finish(self) -> None:
        pass


class BarProgress:
    """Shows a tqdm bar on standard error, and removes it when the job is over."""

    def __init__(self) -> None:
        self._finish: Callable[[], None] = lambda: None
        self._update: Callable[[int], object] = lambda nbytes: None

    def start(self, what: str, total: int | None) -> None:
        from tqdm import tqdm

        bar = tqdm(desc=what, total=total, unit="B", unit_scale=True, leave=False, dynamic_ncols=True)
        self._update, self._finish = bar.update, bar.close

    def advance(self, nbytes: int) -> None:
        self._update(nbytes)

    def finish(self) -> None:
        self._finish()
        self._update = lambda nbytes: None


def default_progress() -> Progress:
    """Returns a bar if standard error is a terminal, else silence."""
    return BarProgress() if sys.stderr is not None and sys.stderr.isatty() else SilentProgress()


@contextmanager
def job(progress: Progress | None, what: str, total: int | None) -> Iterator[Progress]:
    """Runs the body as one job of `progress` (`None`: `default_progress()`)."""
    progress = default_progress() if progress is None else progress
    progress.start(what, total)
    try:
        yield progress
    finally:
        progress.finish()
