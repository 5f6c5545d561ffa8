# SPDX-License-Identifier: Apache-2.0
"""Child processes for code that can hang, crash or need too much memory; requests and answers are lines of JSON.

A child has the module search path of its parent and runs a function that calls `serve`.
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

_START = (
    "import sys; sys.path[:] = sys.argv.pop(1).split('\\n'); import importlib; "
    "getattr(importlib.import_module(sys.argv[1]), sys.argv[2])()"
)
_TRY_SECONDS = 60.0
_LAST_LINE_CHARACTERS = 200


class ChildEndedError(Exception):
    """Error for a child that ended before it answered.

    Attributes:
        status: exit status, or minus the number of the signal that ended the child.
        output: last line that the child printed.
    """

    def __init__(self, status: int, output: str) -> None:
        super().__init__(f"the child process ended with status {status}")
        self.status = status
        self.output = output


class Child:
    """Child process; `end` kills it and the processes that it started.

    Args:
        main: the function that it runs, as `"module:function"`.
        environment: environment variables, by default those of this process.

    Raises:
        OSError: the process cannot be started.
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
                # Ctrl-C in a terminal is sent to the whole group; only the parent must handle it.
                start_new_session=True,
            )
        except OSError:
            self._printed.close()
            raise

    @property
    def running(self) -> bool:
        """Returns `True` until the process ends."""
        return self._process.poll() is None

    def send(self, request: bytes) -> None:
        """Sends a request, a line of `encode`; if the child has ended, `receive` raises the error."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(request)
            self._process.stdin.flush()

    def receive(self, seconds: float) -> Any:
        """Returns the next answer.

        Raises:
            TimeoutError: there is none within `seconds`.
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
        """Kills the process group; a thread that waits in `receive` raises ChildEndedError."""
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
    """Returns a message as a line of JSON; raises TypeError or ValueError if JSON cannot represent it."""
    return json.dumps(message).encode("ascii") + b"\n"


def serve(handle: Callable[[Any, Callable[[object], None]], None], memory: int | None = None) -> None:
    """Answers requests in a child until its parent ends; standard input is empty, and prints go to standard error.

    Args:
        handle: called with each request and a function that sends an answer.
        memory: number of bytes that the process can still allocate; beyond it, it answers `{"error": ...}` or ends.
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
    """Returns the last line of a file, at most 200 characters, without moving the file's offset."""
    size = os.fstat(descriptor).st_size
    text = os.pread(descriptor, 1 << 16, max(0, size - (1 << 16))).decode("utf-8", errors="replace")
    lines = text.strip().splitlines()
    return lines[-1].strip()[-_LAST_LINE_CHARACTERS:] if lines else ""


def try_in_child(code: str, argument: str) -> str | None:
    """Runs Python `code` with the variable `argument` in a child process.

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
    """Runs the code that `try_in_child` sends."""

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
    # Windows has no such limits; the parent's time limit still applies.
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            used = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + limit, used + limit))
    except (OSError, ValueError):
        return
