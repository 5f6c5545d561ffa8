# SPDX-License-Identifier: Apache-2.0
"""Ends an import that does not end by itself: after 60 s by default, at a cost of 0.5 ms for an import that does end.

The import runs in the thread that asked for it; a second thread watches the clock. When time is up it makes the first
thread raise. A main thread gets a signal, which also interrupts sleeping and waiting; in other threads Python can only
raise between two bytecodes, so a thread that waits in a C function is reached when that returns. Code that catches the
exception gets it again.
"""

from __future__ import annotations

import ctypes
import signal
import threading
import time
from types import FrameType

__all__ = ["ImportTimeout", "Watchdog"]

# Ignored by default, so that one which arrives late does no harm; Go uses it for the same purpose.
_SIGNAL = getattr(signal, "SIGURG", None)
_AGAIN_SECONDS = 0.05


class ImportTimeout(BaseException):
    """Interrupts an import; no `Exception`, so that a plugin's `except Exception` does not stop it."""


class Watchdog:
    """Raises ImportTimeout in the thread that entered it, if that has not left after `seconds`.

    Attributes:
        expired: true if time was up.
    """

    def __init__(self, seconds: float) -> None:
        self.expired = False
        self._seconds = seconds
        self._thread = threading.get_ident()
        self._left = threading.Event()
        # Reentrant: the exception may strike between taking the lock and using it, which is then repeated.
        self._lock = threading.RLock()
        self._previous: object = None
        self._signals = False

    def __enter__(self) -> Watchdog:
        self._signals = self._take_signal()
        threading.Thread(target=self._watch, name="atb-import-watchdog", daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        # The exception may arrive in here as well, at any line: once is not enough, and each step may be repeated.
        while True:
            try:
                self._leave()
                return
            except ImportTimeout:
                continue

    def _leave(self) -> None:
        with self._lock:
            self._left.set()
        if self._signals:
            signal.signal(_SIGNAL, self._previous)  # type: ignore[arg-type]
            return
        # No exception is set from here on, and one that is pending strikes in this loop. It is not cleared by setting
        # none: Python 3.11 would then look for it after every call, and hang under a tracer.
        for _ in range(10):
            pass

    def _take_signal(self) -> bool:
        if _SIGNAL is None or threading.current_thread() is not threading.main_thread():
            return False
        self._previous = signal.getsignal(_SIGNAL)
        if self._previous not in (signal.SIG_DFL, signal.SIG_IGN):
            return False
        try:
            signal.signal(_SIGNAL, self._raise)
        except ValueError:  # the main thread of a subinterpreter
            return False
        return True

    def _raise(self, _number: int, _frame: FrameType | None) -> None:
        if not self._left.is_set():
            raise ImportTimeout

    def _watch(self) -> None:
        if self._left.wait(self._seconds):
            return
        self.expired = True
        while True:
            with self._lock:
                if self._left.is_set():
                    return
                self._interrupt()
            time.sleep(_AGAIN_SECONDS)

    def _interrupt(self) -> None:
        if self._signals:
            assert _SIGNAL is not None
            signal.pthread_kill(self._thread, _SIGNAL)
        else:
            kind = ctypes.py_object(ImportTimeout)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread), kind)
