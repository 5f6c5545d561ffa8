# SPDX-License-Identifier: Apache-2.0
"""A process that tells on stderr of calls of plugins that take long, also of code that stops every thread of this one.

It reads lines: the seconds and the text of a call that begins, or nothing for the end of the last one.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import time
from pathlib import Path

from atb_core.plugins import slow_calls


def start_watcher() -> None:
    """Starts the process that watches the calls of this one from now on, if it may; it ends with this one."""
    # A fork copies one thread, and with it the locks that others hold.
    if slow_calls.tell_watcher is not None or len(list(Path("/proc/self/task").glob("*"))) != 1:
        return
    try:
        calls, requests = os.pipe()
    except OSError:
        return
    try:
        is_watcher = os.fork() == 0
    except OSError:  # no more processes are allowed
        os.close(calls)
        os.close(requests)
        return
    if is_watcher:
        try:
            os.close(requests)
            _watch(calls)
        finally:
            os._exit(0)
    os.close(calls)
    slow_calls.tell_watcher = functools.partial(_tell, requests)


def _tell(requests: int, seconds: float, text: str) -> None:
    line = f"{seconds} {' '.join(text.split())[:2000]}\n" if text else "\n"
    with contextlib.suppress(OSError):  # somebody ended it
        os.write(requests, line.encode("utf-8", "replace"))


def _watch(requests: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.closerange(0, 2)  # whoever reads the command's output waits for its end
    begun, pending = list[tuple[float, bytes]](), b""
    while True:
        wait = max(0.0, begun[-1][0] - time.monotonic()) if begun and begun[-1][1] else None
        if not select.select([requests], [], [], wait)[0]:
            os.write(2, begun[-1][1] + b"\n")
            begun[-1] = (0.0, b"")
            continue
        if not (data := os.read(requests, 4096)):
            return
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            seconds, _, text = line.partition(b" ")
            if line:
                begun.append((time.monotonic() + float(seconds), text))
            else:
                begun.pop()
