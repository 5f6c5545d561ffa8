# SPDX-License-Identifier: Apache-2.0
"""Processes in which foreign imports can hang, exit or die without harm to the one that asks.

Each worker serves one request at a time and answers in lines of JSON; a worker that is silent for too long is killed
with all that it started, and another takes its place.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from typing_extensions import Self

# The worker sees the import path of this process before it imports anything from it.
_START: Final = (
    "import sys; sys.path[:] = sys.argv.pop(1).split('\\n'); from atb_core.plugins.doctor.worker import main; main()"
)
# Importing torch for the first time on a slow disk is allowed to take this long.
_PRELOAD_SECONDS: Final = 120.0


@dataclass
class Job:
    """One plugin to import, and what came back.

    Attributes:
        request: what the worker is told, see `worker`.
        answers: what it said of each entry point, in order.
        incomplete: what it said of families that lack a part.
        ended: how its process ended: 0, an exit status, or minus a signal's number; None: not by itself.
        output: the last line that it printed.
        trouble: why the worker itself could not do it, if that was so.
    """

    request: dict[str, Any]
    answers: list[dict[str, Any]] = field(default_factory=list)
    incomplete: list[dict[str, Any]] = field(default_factory=list)
    ended: int | None = None
    output: str = ""
    trouble: str | None = None


class _Worker:
    def __init__(self, environment: dict[str, str]) -> None:
        self.job: Job | None = None
        self.deadline = 0.0
        self._pending = b""
        # A session of its own: Ctrl-C reaches this process alone, which then kills the whole group.
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, "\n".join(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )

    def fileno(self) -> int:
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def start(self, job: Job) -> None:
        assert self._process.stdin is not None
        self.job = job
        self.deadline = time.monotonic() + _PRELOAD_SECONDS
        with contextlib.suppress(BrokenPipeError):  # it died: its output ends, which is noticed there
            self._process.stdin.write(json.dumps(job.request).encode() + b"\n")
            self._process.stdin.flush()

    def lines(self) -> list[dict[str, Any]] | None:
        """What has come; None when the process is gone."""
        data = os.read(self.fileno(), 1 << 16)
        if not data:
            return None
        *complete, self._pending = (self._pending + data).split(b"\n")
        return [json.loads(line) for line in complete]

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


class Pool:
    """A few workers; a context manager that leaves no process behind, however it is left.

    Args:
        size: the most workers at a time.
        timeout: seconds that a worker may be silent while it imports one entry point.
        environment: of the workers.
    """

    def __init__(self, size: int, timeout: float, environment: dict[str, str]) -> None:
        self._size = size
        self._timeout = timeout
        self._environment = environment
        self._selector = selectors.DefaultSelector()
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in list(self._workers):
            self._remove(worker)
        self._selector.close()

    def run(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """Does all jobs; yields each when it is done."""
        waiting = deque(jobs)
        while waiting or any(worker.job for worker in self._workers):
            self._hand_out(waiting)
            yield from self._finished()

    def _hand_out(self, waiting: deque[Job]) -> None:
        for worker in [worker for worker in self._workers if worker.job is None]:
            if waiting:
                worker.start(waiting.popleft())
        while waiting and len(self._workers) < self._size:
            worker = _Worker(self._environment)
            self._workers.append(worker)
            self._selector.register(worker, selectors.EVENT_READ)
            worker.start(waiting.popleft())

    def _finished(self) -> Iterator[Job]:
        busy = [worker for worker in self._workers if worker.job]
        patience = min(worker.deadline for worker in busy) - time.monotonic()
        ready = {key.fileobj for key, _ in self._selector.select(max(0.0, patience))}
        now = time.monotonic()
        for worker in busy:
            job = worker.job
            assert job is not None
            if worker in ready:
                over = self._read(worker, job, now)
            elif over := now >= worker.deadline:
                self._remove(worker)
            if over:
                worker.job = None
                yield job

    def _read(self, worker: _Worker, job: Job, now: float) -> bool:
        """Takes what a worker said; whether its job is over."""
        lines = worker.lines()
        if lines is None:
            job.trouble = "the process that imports plugins ended unexpectedly"
            self._remove(worker)
            return True
        for line in lines:
            worker.deadline = now + self._timeout
            if "trouble" in line:
                job.trouble = line["trouble"]
                return True
            if "ended" in line:
                job.ended, job.output = line["ended"], line["output"]
                return True
            if "record" in line:
                job.answers.append(line["record"])
            if "incomplete" in line:
                job.incomplete.append(line["incomplete"])
        return False

    def _remove(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        self._selector.unregister(worker)
        worker.kill()
