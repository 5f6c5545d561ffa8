# SPDX-License-Identifier: Apache-2.0
"""Child processes for code that can hang, crash or need too much memory.

A child has the module search path of its parent and runs a function that calls `serve`. Requests and answers are lines
of JSON, each after the number of its request, on two pipes that nothing else knows: whatever is printed, at Python's
start too, goes to a file.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import threading
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
_LONGEST_ANSWER = 256 << 20


class ChildError(Exception):
    """Error for a child that ended before it answered, or that sent something else than an answer.

    Attributes:
        status: exit status, or minus the number of the signal that ended the child; `None` for what is no answer.
        output: last line that the child printed, or what it sent.
    """

    def __init__(self, status: int | None, output: str) -> None:
        if status is None:
            cause = "sent something that is no answer"
        else:
            cause = f"ended with signal {-status}" if status < 0 else f"ended with status {status}"
        super().__init__(f"its process {cause}" + (f" ({output})" if output else ""))
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
        self._number, self._pending = 0, b""
        requests, self._requests = os.pipe()
        self._answers, answers = os.pipe()
        os.set_blocking(self._requests, False)
        self._printed: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the child
        paths = "\n".join(map(os.path.abspath, sys.path))
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, paths, *main.split(":"), str(requests), str(answers)],
                stdin=subprocess.DEVNULL,
                stdout=self._printed,
                stderr=self._printed,
                pass_fds=(requests, answers),
                env=environment,
                # Ctrl-C in a terminal is sent to the whole group; only the parent must handle it.
                start_new_session=True,
            )
        except OSError:
            self.close()
            raise
        finally:
            os.close(requests)
            os.close(answers)

    @property
    def running(self) -> bool:
        """Returns `True` until the process ends."""
        return self._process.poll() is None

    def send(self, request: bytes, seconds: float = _TRY_SECONDS) -> None:
        """Sends a request, a line of `encode`; if the child has ended, `receive` raises the error.

        Raises:
            TimeoutError: the child does not read it within `seconds`.
        """
        self._number += 1
        rest, deadline = memoryview(b"%d " % self._number + request), time.monotonic() + seconds
        with contextlib.suppress(BrokenPipeError):
            while rest:
                _wait(self._requests, select.POLLOUT, deadline)
                rest = rest[os.write(self._requests, rest) :]

    def receive(self, seconds: float) -> Any:
        """Returns the next answer to the last request.

        Raises:
            TimeoutError: there is none within `seconds`.
            ChildError: the child has ended, or sent something else, for which it is killed.
        """
        deadline = time.monotonic() + seconds
        while b"\n" not in self._pending and len(self._pending) <= _LONGEST_ANSWER:
            _wait(self._answers, select.POLLIN, deadline)
            piece = os.read(self._answers, 1 << 20)
            if not piece:
                raise ChildError(self._process.wait(), last_line(self._printed.fileno()))
            self._pending += piece
        line, _, self._pending = self._pending.partition(b"\n")
        number, _, answer = line.partition(b" ")
        try:
            if number != b"%d" % self._number:
                raise ValueError
            return json.loads(answer)
        except ValueError:
            self.kill()
            raise ChildError(None, repr(line[:_LAST_LINE_CHARACTERS])) from None

    def kill(self) -> None:
        """Kills the process group; a thread that waits in `receive` raises ChildError."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kills the process group and closes the pipes."""
        self.kill()
        self._process.wait()
        self.close()

    def close(self) -> None:
        """Closes the pipes, which lets the child end by itself."""
        os.close(self._requests)
        os.close(self._answers)
        self._printed.close()


class Worker:
    """Child process that is started when it is first asked, and again after it ended.

    A fork of this process starts one of its own: the answers of one child to two processes would be mixed up.

    Args:
        main: as for `Child`.
        first: request that each new process answers before all others, if there is one; may be set later.
    """

    def __init__(self, main: str, first: bytes | None = None) -> None:
        self._main, self.first = main, first
        self._forget()

    def _forget(self) -> None:
        self._child: Child | None = None
        self._lock = threading.Lock()
        self._owner = os.getpid()

    def ask(self, request: bytes, seconds: float) -> Any:
        """Returns the answer to a request, one thread at a time.

        Raises:
            TimeoutError: there is none within `seconds`; the process is ended.
            ChildError: the process ended, or sent something that is no answer and was ended.
            OSError: the process cannot be started.
        """
        if self._owner != os.getpid():
            if self._child is not None:
                self._child.close()
            self._forget()
        with self._lock:
            try:
                if self._child is None or not self._child.running:
                    self._end()
                    self._child = Child(self._main)
                    if self.first is not None:
                        self._exchange(self._child, self.first, _TRY_SECONDS)
                return self._exchange(self._child, request, seconds)
            except BaseException:
                self._end()
                raise

    def try_ask(self, request: bytes, seconds: float, memory: int) -> dict[str, Any]:
        """Returns the answer to a request, or `{"error": cause}` without one; `memory` is the limit of `serve`."""
        try:
            answer: dict[str, Any] = self.ask(request, seconds)
        except ChildError as error:
            answer = {"error": f"{error}; it is faulty, or needs more than {memory >> 20} MiB of memory"}
        except TimeoutError:
            answer = {"error": f"it takes more than {seconds:g} seconds"}
        except OSError as error:
            answer = {"error": f"its process cannot be started: {error}"}
        return answer

    def _exchange(self, child: Child, request: bytes, seconds: float) -> Any:
        child.send(request, seconds)
        return child.receive(seconds)

    def end(self) -> None:
        """Ends the process after its current request, if there is one."""
        if self._owner == os.getpid():
            with self._lock:
                self._end()

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end()


def encode(message: object) -> bytes:
    """Returns a message as a line of JSON; raises TypeError or ValueError if JSON cannot represent it."""
    return json.dumps(message).encode("ascii") + b"\n"


def serve(
    handle: Callable[[Any, Callable[[object], None]], None], memory: int | None = None, sealed: bool = True
) -> None:
    """Answers requests in a child until its parent ends.

    Args:
        handle: called with each request and a function that sends an answer.
        memory: number of bytes that the process can still allocate; beyond it, it answers `{"error": ...}` or ends.
        sealed: with limited memory, the process can neither open files and connections nor start processes any more.
    """
    requests, answers = (os.fdopen(int(number), mode) for number, mode in zip(sys.argv[-2:], ("rb", "wb"), strict=True))
    for pipe in (requests, answers):
        os.set_inheritable(pipe.fileno(), False)
    if memory is not None:
        _limit(memory, sealed)
    for line in requests:
        number, _, request = line.partition(b" ")

        def answer(value: object, number: bytes = number) -> None:
            answers.write(number + b" " + encode(value))
            answers.flush()

        try:
            handle(json.loads(request), answer)
        except MemoryError:
            answer({"error": "it needs too much memory"})


def _wait(descriptor: int, event: int, deadline: float) -> None:
    """Returns when a pipe can be read or written, or its other end is closed; TimeoutError at the deadline."""
    poll = select.poll()
    poll.register(descriptor, event)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise TimeoutError


def last_line(descriptor: int) -> str:
    """Returns the last line of a file, at most 200 characters, without moving the file's offset."""
    size = os.fstat(descriptor).st_size
    text = os.pread(descriptor, 1 << 16, max(0, size - (1 << 16))).decode("utf-8", errors="replace")
    # Rust follows its reason by a note on how to see more.
    lines = [line for line in text.strip().splitlines() if not line.startswith("note: ")]
    return lines[-1].strip()[-_LAST_LINE_CHARACTERS:] if lines else ""


def try_in_child(code: str, argument: str) -> str | None:
    """Runs Python `code` with the variable `argument` in a child process.

    Returns:
        The cause if it fails, hangs or ends the process; `None` if it succeeds.
    """
    worker = Worker("atb_core.child:run_code")
    try:
        problem: str | None = worker.ask(encode({"code": code, "argument": argument}), _TRY_SECONDS)["problem"]
        return problem
    except TimeoutError:
        return f"loading it takes more than {_TRY_SECONDS:.0f} seconds"
    except ChildError as error:
        if error.status is not None and error.status < 0:
            last = f" ({error.output})" if error.output else ""
            return f"loading it ends the process with signal {-error.status}{last}"
        return error.output or f"loading it ends the process with status {error.status}"
    except OSError as error:
        return f"no process could be started to load it: {error}"
    finally:
        worker.end()


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


def _limit(memory: int, sealed: bool) -> None:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            used = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
    except (OSError, ValueError):
        pass
    for limit in (resource.RLIMIT_CORE, *((resource.RLIMIT_NPROC, resource.RLIMIT_NOFILE) if sealed else ())):
        resource.setrlimit(limit, (0, 0))
