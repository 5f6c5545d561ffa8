# SPDX-License-Identifier: Apache-2.0
"""Child processes for code that may hang, crash or take too much memory; requests and answers are lines of JSON.

A child runs a function of a module, which calls `serve`. It searches the same directories for modules as its parent.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from typing import IO, Any

__all__ = ["Child", "ChildEndedError", "encode", "last_line", "serve", "try_in_child"]

_START = (
    "import sys; sys.path[:] = sys.argv.pop(1).split('\\n'); import importlib; "
    "getattr(importlib.import_module(sys.argv[1]), sys.argv[2])()"
)
_TRY_SECONDS = 60.0
_LAST_LINE_CHARACTERS = 200


class ChildEndedError(Exception):
    """Reports that a child ended before it answered.

    Attributes:
        status: its exit status, or minus the number of the signal that ended it.
        output: the last line that it printed.
    """

    def __init__(self, status: int, output: str) -> None:
        super().__init__(f"the child process ended with status {status}")
        self.status = status
        self.output = output


class Child:
    """A child process. `end` kills it with all that it started.

    Args:
        main: the function that it runs: `"module:function"`.
        environment: its environment variables; by default those of this process.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, main: str, environment: Mapping[str, str] | None = None) -> None:
        self._printed: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the child
        self._pending = b""
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, "\n".join(map(os.path.abspath, sys.path)), *main.split(":")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._printed,
                env=environment,
                # Ctrl-C in a terminal goes to the whole group; it is the parent's to handle.
                start_new_session=True,
            )
        except OSError:
            self._printed.close()
            raise

    @property
    def running(self) -> bool:
        """True until the process ends."""
        return self._process.poll() is None

    def send(self, request: bytes) -> None:
        """Sends a request, a line that `encode` made. If the child has ended, `receive` says so."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(request)
            self._process.stdin.flush()

    def receive(self, seconds: float) -> Any:
        """Returns the next answer.

        Raises:
            TimeoutError: none came within `seconds`.
            ChildEndedError: the child has ended.
        """
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        deadline = time.monotonic() + seconds
        while b"\n" not in self._pending:
            if not select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError
            piece = os.read(descriptor, 1 << 16)
            if not piece:
                raise ChildEndedError(self._process.wait(), last_line(self._printed.fileno()))
            self._pending += piece
        line, _, self._pending = self._pending.partition(b"\n")
        return json.loads(line)

    def kill(self) -> None:
        """Kills the process group; a thread that waits in `receive` gets ChildEndedError."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kills the process group and closes the pipes."""
        self.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._printed):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def encode(message: object) -> bytes:
    """Returns a request or an answer as a line; TypeError or ValueError if JSON cannot hold it."""
    return json.dumps(message).encode("ascii") + b"\n"


def serve(handle: Callable[[Any, Callable[[object], None]], None], memory: int | None = None) -> None:
    """Answers requests in a child until its parent ends it or goes away.

    Whatever the process prints goes to standard error, and reading from standard input gives nothing.

    Args:
        handle: called with each request and a function that sends an answer.
        memory: bytes that the process may allocate from now on; beyond that it answers `{"error": ...}` or ends.
    """
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)

    def answer(value: object) -> None:
        answers.write(encode(value))
        answers.flush()

    if memory is not None:
        _limit_memory(memory)
    for line in requests:
        try:
            handle(json.loads(line), answer)
        except MemoryError:
            answer({"error": "it needs too much memory"})


def last_line(descriptor: int) -> str:
    """Returns the last line in a file, without moving its offset; at most 200 characters."""
    size = os.fstat(descriptor).st_size
    text = os.pread(descriptor, 1 << 16, max(0, size - (1 << 16))).decode("utf-8", errors="replace")
    lines = text.strip().splitlines()
    return lines[-1].strip()[-_LAST_LINE_CHARACTERS:] if lines else ""


def try_in_child(code: str, argument: str) -> str | None:
    """Runs Python `code`, which finds `argument` under that name, in a child of its own.

    Returns:
        The cause if it fails, hangs or ends the process; `None` if it succeeds.
    """
    try:
        child = Child("atb_core.child:run_code")
    except OSError as error:
        return f"no process could be started to load it: {error}"
    try:
        child.send(encode({"code": code, "argument": argument}))
        problem: str | None = child.receive(_TRY_SECONDS)["problem"]
        return problem
    except TimeoutError:
        return f"loading it takes more than {_TRY_SECONDS:.0f} seconds"
    except ChildEndedError as error:
        if error.status < 0:
            last = f" ({error.output})" if error.output else ""
            return f"loading it ends the process with signal {-error.status}{last}"
        return error.output or f"loading it ends the process with status {error.status}"
    finally:
        child.end()


def run_code() -> None:
    """Serves `try_in_child`."""

    def handle(request: dict[str, str], answer: Callable[[object], None]) -> None:
        problem = None
        try:
            exec(request["code"], {"argument": request["argument"]})
        except Exception as error:
            problem = "".join(traceback.format_exception(error)).strip().splitlines()[-1].strip()
        answer({"problem": problem})

    serve(handle)


def _limit_memory(limit: int) -> None:
    try:
        import resource
    except ImportError:  # Not on this system; the parent's time limit still holds.
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            used = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + limit, used + limit))
    except (OSError, ValueError):
        return
