# SPDX-License-Identifier: Apache-2.0
"""Gives every reader files that are damaged at random, in child processes with limits on memory and time.

    python tests/fuzz/run.py --count 100000 -j 2
    python tests/fuzz/run.py --reader gguf --seed 7 --case 1234

A case is its reader, the seed and its number: the same three give the same files. An answer or an `AtbError` is right;
another exception, the end of the process, no end, or more memory than allowed is a finding. Its files are kept in a
folder of their own (`--keep`) with the command that repeats it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import IO, Any

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))

#: Memory that a case may need beyond what the process has when it begins.
MEMORY = 1 << 30
#: Seconds that a case may take, and those for the imports before the first one.
SECONDS, START_SECONDS = 30.0, 300.0
#: Characters that a message may have.
MESSAGE = 10_000


def readers() -> dict[str, Any]:
    """The readers by name; the tests of this module put others in their place."""
    table: dict[str, Any] = importlib.import_module(os.environ.get("FUZZ_READERS", "fuzz.readers")).READERS
    return table


def write_case(reader_name: str, seed: int, number: int, folder: Path) -> None:
    """Writes the files of a case; they follow from reader, seed and number alone."""
    from fuzz.mutations import mutate

    reader, rng = readers()[reader_name], Random(f"{reader_name} {seed} {number}")
    files = dict(rng.choice(reader.sets))
    changed = rng.choice(sorted(name for name in files if name.endswith(reader.changed)))
    files[changed] = mutate(rng, changed, files[changed])
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def read_case(reader_name: str, folder: Path) -> str | None:
    """Reads the files of a case as users would; returns what is wrong, `None` if nothing is."""
    from atb_core.errors import AtbError

    try:
        readers()[reader_name].read(folder)
    except AtbError as error:
        length = len(str(error))
        return f"a message of more than {MESSAGE} characters" if length > MESSAGE else None
    # Panics of libraries in Rust are no `Exception`.
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} in {Path(last.filename).name}:{last.lineno}"
    return None


def work(names: list[str], seed: int, numbers: Iterator[int], out: IO[str]) -> None:
    """Runs cases in this process and writes a line before and after each."""
    for name in names:
        readers()[name].sets  # noqa: B018 - makes them before the limit is set
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in numbers:
        name = names[number % len(names)]
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            print(json.dumps({"begin": number}), file=out, flush=True)
            write_case(name, seed, number, Path(folder))
            problem = read_case(name, Path(folder))
        print(json.dumps({"end": number, "problem": problem}), file=out, flush=True)


@dataclass
class Session:
    """The findings of one run.

    Attributes:
        keep: folder in which the files of findings are kept.
    """

    names: list[str]
    seed: int
    keep: Path
    done: int = 0
    findings: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def report(self, number: int, problem: str) -> None:
        """Notes a finding; the first of each kind is kept."""
        name = self.names[number % len(self.names)]
        with self.lock:
            numbers = self.findings.setdefault((name, problem), [])
            numbers.append(number)
            if len(numbers) > 1:
                return
        folder = self.keep / f"{name}-{self.seed}-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        write_case(name, self.seed, number, folder)
        readers = " ".join(f"--reader {one}" for one in self.names)
        command = f"python tests/fuzz/run.py {readers} --seed {self.seed} --case {number}"
        (folder / "FINDING").write_text(f"{problem}\n{command}\n", encoding="utf-8")
        print(f"{name}: {problem}\n  files in {folder}\n  {command}", flush=True)

    def run(self, numbers: range, deadline: float) -> None:
        """Runs these cases in child processes, a new one after each that ends."""
        while numbers and time.monotonic() < deadline:
            numbers = self._run_child(numbers, deadline)

    def _run_child(self, numbers: range, deadline: float) -> range:
        """Runs cases until their child ends, and returns those that remain."""
        arguments = [json.dumps(one) for one in (self.names, self.seed, [numbers.start, numbers.stop, numbers.step])]
        child = subprocess.Popen(
            [sys.executable, __file__, "--worker", *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        assert child.stdout is not None
        watch, started = _Watch(child, START_SECONDS), False
        current: int | None = None
        for line in child.stdout:
            watch.stop()
            started, message = True, json.loads(line)
            current = message.get("begin")
            if current is None:
                self.done += 1
                numbers = range(message["end"] + numbers.step, numbers.stop, numbers.step)
                if message["problem"]:
                    self.report(message["end"], message["problem"])
                if time.monotonic() > deadline:
                    break
            watch = _Watch(child, SECONDS)
        watch.stop()
        if current is not None:
            status = child.wait()
            ended = f"it takes more than {SECONDS:g} s" if watch.struck else f"the process ended with status {status}"
            self.done += 1
            self.report(current, ended)
            return range(current + numbers.step, numbers.stop, numbers.step)
        _kill(child)
        if not started:
            raise RuntimeError("the process that reads the files did not start")
        return numbers if time.monotonic() < deadline else range(0)


class _Watch:
    """Kills a child that says nothing for some seconds."""

    def __init__(self, child: subprocess.Popen[bytes], seconds: float) -> None:
        self.struck = False
        self._child = child
        self._timer = threading.Timer(seconds, self._strike)
        self._timer.daemon = True
        self._timer.start()

    def stop(self) -> None:
        self._timer.cancel()

    def _strike(self) -> None:
        self.struck = True
        _kill(self._child)


def _kill(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def fuzz(names: list[str], seed: int, count: int, seconds: float, jobs: int, keep: Path) -> Session:
    """Runs `count` cases, or as many as `seconds` allow, in `jobs` processes at a time."""
    session, deadline = Session(names, seed, keep), time.monotonic() + seconds
    with ThreadPoolExecutor(jobs) as threads:
        for done in [threads.submit(session.run, range(job, count, jobs), deadline) for job in range(jobs)]:
            done.result()
    return session


def main() -> int:
    """Reads the arguments, runs, and returns the exit status: 1 if there are findings."""
    if sys.argv[1:2] == ["--worker"]:
        names, seed, numbers = map(json.loads, sys.argv[2:])
        # What a reader prints must not look like a line of this protocol.
        out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        work(names, seed, range(*numbers), out)
        return 0
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=10**9, help="number of cases; without it, --seconds decides")
    parser.add_argument("--seconds", type=float, help="how long to run; 60 without --count")
    parser.add_argument(
        "--reader", action="append", choices=readers(), help="only this one; may be given several times"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other cases")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"), help="where findings are kept")
    parser.add_argument("--case", type=int, help="writes this case to --keep and reads it in this process")
    given = parser.parse_args()
    names = given.reader or list(readers())
    if given.case is not None:
        return repeat(names, given.seed, given.case, given.keep)
    seconds = given.seconds or (60.0 if given.count == 10**9 else 1e9)
    session = fuzz(names, given.seed, given.count, seconds, given.jobs, given.keep)
    print(f"{session.done} cases, {len(session.findings)} kinds of findings")
    for (name, problem), numbers in sorted(session.findings.items(), key=lambda item: -len(item[1])):
        print(f"{len(numbers):6} {name}: {problem}")
    return 1 if session.findings else 0


def repeat(names: list[str], seed: int, number: int, keep: Path) -> int:
    """Reads one case in this process, with the traceback of what it raises."""
    name = names[number % len(names)]
    folder = keep / f"{name}-{seed}-{number}"
    write_case(name, seed, number, folder)
    print(f"{name}, files in {folder}", flush=True)
    readers()[name].read(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
