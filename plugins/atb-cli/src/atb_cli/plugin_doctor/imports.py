# SPDX-License-Identifier: Apache-2.0
"""Imports every entry point of plugins in child processes, and judges the outcome.

Listing and routing must not need torch. So routers, configurations and hooks are imported in a process without it; then
models, and entries that imported torch, in one that has imported it: no time is torch's own.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, Final

from atb_ascend.findings import Finding, Level
from atb_cli.plugin_doctor.worker import MEMORY
from atb_core.child import Child, ChildError, encode
from atb_core.plugins.records import Status
from atb_core.plugins.scan import API, CPP_MODELS, MODELS, Installed, environment

#: An import that takes longer gets a warning.
SLOW_SECONDS: Final = 0.5
# Importing torch for the first time on a slow disk may take this long.
_PRELOAD_SECONDS: Final = 120.0


class Imports:
    """Holds the outcome of importing one plugin.

    Attributes:
        seconds: of all entry points together, without torch's own; `None` if some could not be imported.
        trouble: why something could not be tried, if that is no fault of the plugin.
    """

    def __init__(self, plugin: Installed) -> None:
        self.plugin = plugin
        self.findings: list[Finding] = []
        self.seconds: float | None = 0.0
        self.trouble: str | None = None

    def judge(self, targets: Sequence[str], answers: dict[str, list[Any]], timeout: float) -> list[str]:
        """Takes the answers of a worker about `targets`; returns those that imported torch, to be timed with it."""
        if answers["trouble"]:
            self.trouble, self.seconds = answers["trouble"][0], None
            return []
        failures: dict[str, list[dict[str, Any]]] = {}
        again = []
        for record in answers["record"]:
            if record["status"] != Status.OK.value:
                failures.setdefault(record["reason"], []).append(record)
            elif record["imported_torch"]:
                again.append(record["target"])
                self.findings.append(_torch(record["target"]))
            elif self.seconds is not None:
                self.seconds += record["import_seconds"]
        for reason, records in failures.items():
            limit = f" (an import may take {MEMORY >> 30} GiB here)" if reason.startswith("MemoryError") else ""
            message = f"{reason}{limit} [{'; '.join(record['target'] for record in records)}]"
            first = records[0]
            self.findings.append(Finding("import", Level.ERROR, message, fix=first["fix"], detail=first["exception"]))
        for count in answers["threads"]:
            message = f"importing it starts {count} threads that keep a program from ending"
            fix = "Its author starts them where they are needed, as daemon threads."
            self.findings.append(Finding("threads", Level.WARNING, message, fix=fix))
        for part in answers["incomplete"]:
            self.findings.append(Finding("incomplete", Level.ERROR, part["message"], fix=part["fix"]))
        status, output = answers["ended"][0] if answers["ended"] else (None, "")
        if died := not answers["done"]:
            done = len(answers["record"])
            target = targets[done] if done < len(targets) else "its entry points"
            self.findings.append(_death(target, status, output, timeout))
        if failures or died:
            self.seconds = None
        return again


class _Worker:
    """Imports one plugin at a time, by two child processes: without torch and with it.

    A child that dies or does not answer is replaced.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        self._children: dict[bool, Child] = {}

    def examine(self, plugin: Installed) -> Imports:
        """Imports everything of a plugin."""
        imports = Imports(plugin)
        # Where atb-cpp-models is not installed, nothing imports the models that are registered with it.
        others = (API, MODELS) if "atb-cpp-models" in environment() else (API, MODELS, CPP_MODELS)
        light = [entry.target for entry in plugin.entries if entry.group not in others]
        heavy = [entry.target for entry in plugin.entries if entry.group == MODELS]
        if light:
            heavy += imports.judge(light, self._ask(plugin, light, heavy=False), self._timeout)
        if heavy and imports.trouble is None:
            imports.judge(heavy, self._ask(plugin, heavy, heavy=True), self._timeout)
        if imports.seconds is not None and imports.seconds > SLOW_SECONDS:
            message = f"importing it is slow: {imports.seconds:.1f} s besides what torch takes"
            fix = "Its author finds out why with python -X importtime, and imports what is heavy where it is used."
            imports.findings.append(Finding("slow-import", Level.WARNING, message, fix=fix))
        return imports

    def _ask(self, plugin: Installed, targets: list[str], *, heavy: bool) -> dict[str, list[Any]]:
        """Returns the answers of a child process by kind (see `worker`); without `ended`, the import never ended."""
        answers: dict[str, list[Any]] = {
            kind: [] for kind in ("ready", "record", "threads", "incomplete", "done", "ended", "trouble")
        }
        child = self._children.get(heavy) or Child("atb_cli.plugin_doctor.worker:main", self._environment)
        self._children[heavy] = child
        child.send(encode({"path": str(plugin.path), "targets": targets, "heavy": heavy}))
        try:
            while not answers["ended"] and not answers["trouble"]:
                seconds = self._timeout if answers["ready"] else _PRELOAD_SECONDS
                for kind, value in child.receive(seconds).items():
                    answers[kind].append(value)
            return answers
        except TimeoutError:
            pass
        except ChildError:
            answers["trouble"].append("the process that imports plugins ended unexpectedly")
        self._children.pop(heavy).end()
        return answers

    def kill(self) -> None:
        """Kills the child processes; `examine`, in another thread, then returns."""
        for child in list(self._children.values()):
            child.kill()

    def end(self) -> None:
        """Ends the child processes."""
        for child in self._children.values():
            child.end()


def import_all(
    plugins: Sequence[Installed], *, timeout: float, jobs: int, progress: Callable[[int], object]
) -> list[Imports]:
    """Imports plugins. Arguments: see `examine`."""
    if not plugins:
        return []
    workers = [_Worker(timeout) for _ in range(min(jobs, len(plugins)))]
    idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def examine(plugin: Installed) -> Imports:
        worker = idle.get()
        try:
            return worker.examine(plugin)
        finally:
            idle.put(worker)

    threads = ThreadPoolExecutor(len(workers))
    try:
        tasks = [threads.submit(examine, plugin) for plugin in plugins]
        for _ in as_completed(tasks):
            progress(1)
        return [task.result() for task in tasks]
    except BaseException:
        threads.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.kill()
        raise
    finally:
        threads.shutdown()
        for worker in workers:
            worker.end()


def _torch(target: str) -> Finding:
    return Finding(
        "torch-import",
        Level.WARNING,
        f"importing {target} imports torch, which takes seconds where no model is run",
        fix="Its author imports torch inside of functions there, or only in the module of the model.",
    )


def _death(target: str, status: int | None, output: str, timeout: float) -> Finding:
    """Returns the finding for a process that ended with `status`, or not at all, while it imported `target`."""
    if status is None:
        message = f"the import of {target} did not end within {timeout:g} seconds"
    elif status < 0:
        message = f"importing {target} killed the process with signal {-status}"
    else:
        message = f"importing {target} ended the process with exit status {status}"
    last = f"; the last it printed: {output}" if output else ""
    fix = "Report it to its author, and leave it out until then."
    return Finding("import", Level.ERROR, message + last, fix=fix)
