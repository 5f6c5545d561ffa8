# SPDX-License-Identifier: Apache-2.0
"""Imports every entry point of plugins, each plugin in a process of its own, and judges how that went.

What is listed or routed must not need torch, so routers, configurations and hooks are imported where torch is not;
models afterwards where it is, and so is whatever imported torch, so that no time is torch's own.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any, Final

from atb_core.child import Child, ChildEndedError, encode
from atb_core.findings import Finding, Level
from atb_core.plugins.records import Status
from atb_core.plugins.scan import API, MODELS, Installed

#: An import that takes longer is worth a warning.
SLOW_SECONDS: Final = 0.5
# The loader ends an import that takes too long; a worker is killed where the loader cannot, some seconds later.
_GRACE_SECONDS: Final = 5.0
# Importing torch for the first time on a slow disk may take this long.
_PRELOAD_SECONDS: Final = 120.0


class Imports:
    """What became of importing one plugin.

    Attributes:
        seconds: of all entry points together, without torch's own; None if some could not be imported.
        trouble: why something could not be tried, through no fault of the plugin's.
    """

    def __init__(self, plugin: Installed) -> None:
        self.plugin = plugin
        self.findings: list[Finding] = []
        self.seconds: float | None = 0.0
        self.again: list[str] = []
        self.trouble: str | None = None

    def job(self, *, heavy: bool) -> Job | None:
        """What is to be imported without torch or, `heavy`, with it; None: nothing."""
        targets = [e.target for e in self.plugin.entries if e.group != API and (e.group == MODELS) == heavy]
        if heavy:
            targets += self.again
        return Job({"path": str(self.plugin.path), "targets": targets, "heavy": heavy}) if targets else None

    def take(self, job: Job, timeout: float) -> None:
        """Judges what a job brought."""
        if job.trouble is not None:
            self.trouble, self.seconds = job.trouble, None
            return
        failed: dict[str, list[dict[str, Any]]] = {}
        for record in job.answers:
            if record["status"] != Status.OK.value:
                failed.setdefault(record["reason"], []).append(record)
            elif record["imported_torch"]:
                self.again.append(record["target"])
                self.findings.append(_torch(record["target"]))
            elif self.seconds is not None:
                self.seconds += record["import_seconds"]
        self.findings += [_failure(records) for records in failed.values()]
        self.findings += [Finding("incomplete", Level.ERROR, one["message"], fix=one["fix"]) for one in job.incomplete]
        if job.ended != 0:
            self.findings.append(_death(job, timeout))
        if failed or job.ended != 0:
            self.seconds = None

    def finish(self) -> None:
        """Adds what can only be said at the end."""
        if self.seconds is not None and self.seconds > SLOW_SECONDS:
            message = f"importing it is slow: {self.seconds:.1f} s besides what torch takes"
            fix = "Its author finds out why with python -X importtime, and imports what is heavy where it is used."
            self.findings.append(Finding("slow-import", Level.WARNING, message, fix=fix))


@dataclass
class Job:
    """One plugin to import, and the answers of the child process that tried.

    Attributes:
        request: see `worker`.
        answers: the load record of each entry point, in order.
        incomplete: families that lack a part.
        ended: exit status of the process that imported, or minus a signal's number; `None`: it did not end itself.
        output: the last line that it printed.
        trouble: the reason why nothing could be tried, if that was so.
    """

    request: dict[str, Any]
    answers: list[dict[str, Any]] = field(default_factory=list)
    incomplete: list[dict[str, Any]] = field(default_factory=list)
    ended: int | None = None
    output: str = ""
    trouble: str | None = None

    def take(self, answer: dict[str, Any]) -> bool:
        """Takes one answer; returns true if it is the last one."""
        if "record" in answer:
            self.answers.append(answer["record"])
        elif "incomplete" in answer:
            self.incomplete.append(answer["incomplete"])
        elif "trouble" in answer:
            self.trouble = answer["trouble"]
        elif "ended" in answer:
            self.ended, self.output = answer["ended"], answer["output"]
        return "trouble" in answer or "ended" in answer


class _Worker:
    """Does one job at a time in a child process, which is replaced if it dies or does not answer.

    Args:
        seconds: that the child may be silent while it imports one entry point.
    """

    def __init__(self, seconds: float, environment: dict[str, str]) -> None:
        self._seconds = seconds
        self._environment = environment
        self.child: Child | None = None

    def do(self, job: Job) -> None:
        """Does a job and keeps the answers in it."""
        self.child = self.child or Child("atb_core.plugins.doctor.worker:main", self._environment)
        self.child.send(encode(job.request))
        try:
            if not job.take(self.child.receive(_PRELOAD_SECONDS)):
                while not job.take(self.child.receive(self._seconds)):
                    pass
            return
        except TimeoutError:
            pass  # `ended` stays None
        except ChildEndedError:
            job.trouble = "the process that imports plugins ended unexpectedly"
        self.end()

    def end(self) -> None:
        """Ends the child process."""
        child, self.child = self.child, None
        if child is not None:
            child.end()


def import_all(
    plugins: Iterable[Installed], *, timeout: float, jobs: int, progress: Callable[[int], object]
) -> list[Imports]:
    """Imports plugins, `jobs` at a time.

    Args:
        timeout: seconds that the import of one entry point may take.
        progress: called with 1 for each plugin that is done.
    """
    imports = [Imports(plugin) for plugin in plugins]
    environment = {**os.environ, "ATB_PLUGIN_TIMEOUT": f"{timeout:g}", "OPENBLAS_NUM_THREADS": "1"}
    workers = [_Worker(timeout + _GRACE_SECONDS, environment) for _ in range(min(jobs, len(imports)))]
    try:
        for heavy in (False, True):
            for one, job in _done(workers, [(one, job) for one in imports if (job := one.job(heavy=heavy))]):
                one.take(job, timeout)
                if heavy or one.job(heavy=True) is None:
                    progress(1)
    finally:
        for worker in workers:
            worker.end()
    for one in imports:
        one.finish()
    return imports


def _done(workers: Sequence[_Worker], work: Sequence[tuple[Imports, Job]]) -> Iterator[tuple[Imports, Job]]:
    """Does all jobs, and yields each when it is done."""
    if not work:
        return
    idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def do(pair: tuple[Imports, Job]) -> tuple[Imports, Job]:
        worker = idle.get()
        try:
            worker.do(pair[1])
        finally:
            idle.put(worker)
        return pair

    with ThreadPoolExecutor(len(workers)) as threads:
        try:
            yield from (done.result() for done in as_completed([threads.submit(do, pair) for pair in work]))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            for worker in workers:
                if worker.child is not None:
                    worker.child.kill()
            raise


def _failure(records: list[dict[str, Any]]) -> Finding:
    """One finding for all entry points that failed for the same reason."""
    targets = "; ".join(record["target"] for record in records)
    first = records[0]
    message = f"{first['reason']} [{targets}]"
    return Finding("import", Level.ERROR, message, fix=first["fix"], detail=first["exception"])


def _torch(target: str) -> Finding:
    return Finding(
        "torch-import",
        Level.WARNING,
        f"importing {target} imports torch, which takes seconds where no model is run",
        fix="Its author imports torch inside of functions there, or only in the module of the model.",
    )


def _death(job: Job, timeout: float) -> Finding:
    done = len(job.answers)
    target = job.request["targets"][done] if done < len(job.request["targets"]) else "its entry points"
    if job.ended is None:
        message = f"the import of {target} did not end within {timeout:g} seconds and could not be interrupted"
    elif job.ended < 0:
        message = f"importing {target} killed the process with signal {-job.ended}"
    else:
        message = f"importing {target} ended the process with exit status {job.ended}"
    said = f"; the last it printed: {job.output}" if job.output else ""
    fix = "Report it to its author, and leave it out until then."
    return Finding("import", Level.ERROR, message + said, fix=fix)
