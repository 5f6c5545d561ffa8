# SPDX-License-Identifier: Apache-2.0
"""Imports every entry point of plugins, each plugin in a process of its own, and judges how that went.

What is listed or routed must not need torch, so routers, configurations and hooks are imported where torch is not;
models afterwards where it is, and so is whatever imported torch, so that no time is torch's own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from atb_core.plugins.doctor.findings import Finding, Level
from atb_core.plugins.doctor.pool import Job, Pool
from atb_core.plugins.records import Status
from atb_core.plugins.scan import API, MODELS, Installed

#: An import that takes longer is worth a warning.
SLOW_SECONDS: Final = 0.5
# The loader ends an import that takes too long; a worker is killed where the loader cannot, some seconds later.
_GRACE_SECONDS: Final = 5.0


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
        self.findings += [Finding(Level.ERROR, "incomplete", one["message"], one["fix"]) for one in job.incomplete]
        if job.ended != 0:
            self.findings.append(_death(job, timeout))
        if failed or job.ended != 0:
            self.seconds = None

    def finish(self) -> None:
        """Adds what can only be said at the end."""
        if self.seconds is not None and self.seconds > SLOW_SECONDS:
            message = f"importing it is slow: {self.seconds:.1f} s besides what torch takes"
            fix = "Its author finds out why with python -X importtime, and imports what is heavy where it is used."
            self.findings.append(Finding(Level.WARNING, "slow-import", message, fix))


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
    with Pool(min(jobs, len(imports)), timeout + _GRACE_SECONDS, environment) as pool:
        for heavy in (False, True):
            for one in _run(pool, imports, heavy=heavy, timeout=timeout):
                if heavy or one.job(heavy=True) is None:
                    progress(1)
    for one in imports:
        one.finish()
    return imports


def _run(pool: Pool, imports: Sequence[Imports], *, heavy: bool, timeout: float) -> Iterator[Imports]:
    owners = {id(job): (one, job) for one in imports if (job := one.job(heavy=heavy)) is not None}
    for job in pool.run([job for _, job in owners.values()]):
        one, _ = owners[id(job)]
        one.take(job, timeout)
        yield one


def _failure(records: list[dict[str, Any]]) -> Finding:
    """One finding for all entry points that failed for the same reason."""
    targets = "; ".join(record["target"] for record in records)
    first = records[0]
    return Finding(Level.ERROR, "import", f"{first['reason']} [{targets}]", first["fix"], first["exception"])


def _torch(target: str) -> Finding:
    return Finding(
        Level.WARNING,
        "torch-import",
        f"importing {target} imports torch, which takes seconds where no model is run",
        "Its author imports torch inside of functions there, or only in the module of the model.",
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
    return Finding(Level.ERROR, "import", message + said, "Report it to its author, and leave it out until then.")
