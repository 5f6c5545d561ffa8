# SPDX-License-Identifier: Apache-2.0
"""Tells on stderr that code of a plugin takes long, because it might never end.

In a command, a process of its own watches: code in C that holds the interpreter's lock stops every thread of this one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from atb_core.settings import settings

_log = logging.getLogger(__name__)
_SECONDS = 20.0
_requests: int | None = None


def start_watcher() -> None:
    """Starts the process that watches the calls of this one from now on, if it may; it ends with this one."""
    global _requests
    # A fork copies one thread, and with it the locks that others hold.
    if _requests is not None or len(list(Path("/proc/self/task").glob("*"))) != 1:
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
    _requests = requests


def _watch(requests: int) -> None:
    """Reads lines: the seconds and the text of a call that begins, or nothing for the end of the last one."""
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


@contextlib.contextmanager
def told_if_slow(what: str, distribution: str) -> Iterator[None]:
    """Tells that `what` takes long, once, when it has taken 20 s or `ATB_PLUGIN_TIMEOUT`; only the user can end it."""
    seconds = min(_SECONDS, settings().plugins.import_seconds)
    text = (
        f"{what} takes more than {seconds:g} s. Ctrl-C interrupts it, or else Ctrl-\\; "
        f"ATB_NO_PLUGINS={distribution} leaves the plugin out."
    )
    if _requests is not None and threading.current_thread() is threading.main_thread():
        _tell_watcher(f"{seconds} {' '.join(text.split())[:2000]}\n")
        try:
            yield
        finally:
            _tell_watcher("\n")
        return
    timer = threading.Timer(seconds, _log.warning, ("%s", text))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _tell_watcher(line: str) -> None:
    with contextlib.suppress(OSError):  # somebody ended it
        os.write(_requests or 0, line.encode("utf-8", "replace"))
