# SPDX-License-Identifier: Apache-2.0
"""A child answers the request that it was sent, or is ended; what Python prints at its start changes nothing."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from atb_core.child import Child, ChildError, Worker, encode, try_in_child

SERVANT = """
import os, sys, time
from atb_core import child

def main():
    def handle(request, answer):
        if request == "stop":
            print("good bye\\nnote: run with more", flush=True)
            os._exit(3)
        if request == "late":
            time.sleep(0.3)
        if request == "twice":
            answer("first")
        if request == "garbage":
            os.write(int(sys.argv[-1]), b"garbage\\n")
        if request == "open":
            try:
                open("/dev/null")
            except OSError as error:
                request = error.strerror
        if request == "start":
            try:
                os.fork()
            except OSError as error:
                request = error.strerror
        answer([request, os.getpid()])
    child.serve(handle, memory=64 << 20 if "limited" in sys.argv[2] else None)

limited_main = main
"""


@pytest.fixture
def servant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Worker]]:
    (tmp_path / "servant.py").write_text(SERVANT, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    workers = []

    def start(main: str = "main", **options: Any) -> Worker:
        workers.append(Worker(f"servant:{main}", **options))
        return workers[-1]

    yield start
    for worker in workers:
        worker.end()


def ask(worker: Worker, request: object, seconds: float = 30) -> Any:
    return worker.ask(encode(request), seconds)


@pytest.mark.parametrize(
    "startup",
    [
        "print('welcome')",
        "print('1 \"stolen\"', flush=True); print('1 [\"x\", 0]')",
        "import sys; sys.stdout.write('no end of line'); sys.stdout.flush(); sys.stdin.read()",
        "import os; os.write(1, b'\\xff\\n\\n'); os.write(2, b'\\n')",
    ],
)
def test_what_is_printed_when_python_starts_is_no_answer(
    servant: Callable[..., Worker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, startup: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(startup, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    worker = servant()
    for word in ("a", "b", "c"):
        assert ask(worker, word)[0] == word


def test_an_answer_that_comes_too_late_is_not_the_next_ones(servant: Callable[..., Worker]) -> None:
    worker = servant()
    _, process = ask(worker, "a")
    with pytest.raises(TimeoutError):
        ask(worker, "late", 0.05)
    word, other = ask(worker, "b")
    assert word == "b"
    assert other != process


@pytest.mark.parametrize("trick", ["twice", "garbage"])
def test_what_is_no_answer_ends_the_process(servant: Callable[..., Worker], trick: str) -> None:
    worker = servant()
    _, process = ask(worker, "a")
    try:
        ask(worker, trick)
    except ChildError as error:
        assert "no answer" in str(error)  # noqa: PT017 - the first answer of two is as good
    try:
        word, _ = ask(worker, "b")
    except ChildError as error:
        assert "no answer" in str(error)  # noqa: PT017
        word, _ = ask(worker, "b")
    assert word == "b"
    assert ask(worker, "c")[1] != process


def test_the_end_of_a_process_is_told_with_its_last_words(servant: Callable[..., Worker]) -> None:
    with pytest.raises(ChildError, match=r"ended with status 3 \(good bye\)"):
        ask(servant(), "stop")


def test_a_request_that_nobody_reads_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deaf.py").write_text("import time\ndef main():\n    time.sleep(60)\n", encoding="utf-8")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    child = Child("deaf:main")
    start = time.monotonic()
    try:
        with pytest.raises(TimeoutError):
            child.send(encode("x" * 10_000_000), 0.2)
    finally:
        child.end()
    assert time.monotonic() - start < 10


def test_a_long_request_and_its_answer_arrive_whole(servant: Callable[..., Worker]) -> None:
    word = "é" * 3_000_000
    assert ask(servant(), word)[0] == word


def test_a_limited_process_opens_nothing_and_starts_nothing(servant: Callable[..., Worker]) -> None:
    worker = servant("limited_main")
    assert ask(worker, "open")[0] == "Too many open files"
    if os.getuid() != 0:  # root may always
        assert ask(worker, "start")[0] == "Resource temporarily unavailable"


def test_a_fork_has_a_process_of_its_own(servant: Callable[..., Worker]) -> None:
    worker = servant()
    _, process = ask(worker, "a")
    if (fork := os.fork()) == 0:
        try:
            word, other = ask(worker, "b")
            worker.end()
            os._exit(0 if word == "b" and other != process else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]) == 0
    assert ask(worker, "c") == ["c", process]


def test_code_that_leaves_at_once_did_not_succeed() -> None:
    assert try_in_child("x = argument", "y") is None
    assert try_in_child("import os; os._exit(0)", "") == "loading it ends the process with status 0"
