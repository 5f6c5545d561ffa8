# SPDX-License-Identifier: Apache-2.0
"""Progress is counted in bytes, shown on a terminal, and silent elsewhere."""

from __future__ import annotations

import io
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import ModuleType

import pytest

from atb_core.checkpoint.progress import BarProgress, SilentProgress, default_progress, interruptible, job


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Recorder:
    """Remembers its jobs."""

    def __init__(self) -> None:
        self.jobs: list[tuple[str, int | None]] = []
        self.done = 0
        self.finished = 0

    def start(self, what: str, total: int | None) -> None:
        self.jobs.append((what, total))

    def advance(self, nbytes: int) -> None:
        self.done += nbytes

    def finish(self) -> None:
        self.finished += 1


def test_a_bar_is_shown_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert isinstance(default_progress(), BarProgress)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert isinstance(default_progress(), SilentProgress)
    monkeypatch.setattr(sys, "stderr", None)
    assert isinstance(default_progress(), SilentProgress)


def test_a_notebook_has_a_bar_of_its_own_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, object]] = []
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr("tqdm.auto.tqdm", lambda **options: made.append(options) or io.StringIO())
    assert isinstance(default_progress(), BarProgress)
    with job(None, "loading", 5):
        assert [options["desc"] for options in made] == ["loading"]


def test_the_bar_names_the_job_and_counts_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with job(None, "unpacking", 2_000_000) as progress:
        progress.advance(1_000_000)
    assert "unpacking" in terminal.getvalue()
    assert "2.00M" in terminal.getvalue()


def test_a_job_that_fails_is_finished() -> None:
    recorder = Recorder()
    with pytest.raises(KeyboardInterrupt), job(recorder, "x", 1):
        raise KeyboardInterrupt
    assert recorder.finished == 1


def test_an_interrupt_reaches_the_threads_of_the_body() -> None:
    raised = threading.Event()

    def work(check: Callable[[], None]) -> None:
        try:
            while True:
                check()
                time.sleep(0.01)
        except KeyboardInterrupt:
            raised.set()

    before = signal.getsignal(signal.SIGINT)

    def body() -> None:
        with interruptible() as check:
            threading.Thread(target=work, args=(check,)).start()
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        body()
    raised.wait(10)
    assert raised.is_set()
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_of_the_main_thread_interrupts_are_left_alone() -> None:
    checked = []

    def work() -> None:
        with interruptible() as check:
            checked.append(check())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert checked == [None]
