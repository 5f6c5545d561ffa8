# SPDX-License-Identifier: Apache-2.0
"""Shows progress in bytes: a bar on a terminal, silence everywhere else."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol


class Progress(Protocol):
    """Receives the progress of jobs that move bytes."""

    def start(self, what: str, total: int | None) -> None:
        """Begins a job; `what` names it for the user, `total` is its size in bytes, if known."""
        return

    def advance(self, nbytes: int) -> None:
        """Counts `nbytes` more."""
        return

    def finish(self) -> None:
        """Ends the job, after success and after an error."""
        return


class SilentProgress(Progress):
    """Shows nothing: inherits the empty methods."""

    def __init__(self) -> None:
        """Replaces the constructor of `Protocol`, whose signature changes when it first runs."""


class BarProgress(Progress):
    """Shows a tqdm bar on standard error, and removes it when the job is over."""

    def __init__(self) -> None:
        self._bar: Any = None

    def start(self, what: str, total: int | None) -> None:
        # tqdm takes 50 ms to import, and chooses a widget in a notebook if there are any.
        if _in_notebook():
            from tqdm.auto import tqdm
        else:
            from tqdm import tqdm
        self._bar = tqdm(desc=what, total=total, unit="B", unit_scale=True, leave=False, dynamic_ncols=True)

    def advance(self, nbytes: int) -> None:
        if self._bar is not None:
            self._bar.update(nbytes)

    def finish(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _in_notebook() -> bool:
    return "ipykernel" in sys.modules


def default_progress() -> Progress:
    """Returns a bar if standard error is a terminal or a notebook's, else silence."""
    is_shown = sys.stderr is not None and (sys.stderr.isatty() or _in_notebook())
    return BarProgress() if is_shown else SilentProgress()


@contextmanager
def job(progress: Progress | None, what: str, total: int | None) -> Iterator[Progress]:
    """Runs the body as one job of `progress` (`None`: `default_progress()`)."""
    progress = default_progress() if progress is None else progress
    progress.start(what, total)
    try:
        yield progress
    finally:
        progress.finish()


@contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Makes an interrupt (Ctrl-C) end the threads of a library that the body calls.

    Yields a function for these threads to call now and then; it raises `KeyboardInterrupt` after an interrupt. Outside
    of the main thread, which alone is interrupted, it never does.
    """
    interrupted = threading.Event()

    def check() -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield check
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupted.set()
        before(number, frame)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)
