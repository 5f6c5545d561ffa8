# SPDX-License-Identifier: Apache-2.0
"""Values that are computed once in a process and forgotten together."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_all: list[Once[object]] = []
_lock = threading.RLock()


class Once(Generic[T]):
    """Decorates a function without arguments: the first call computes, the others return the same value."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._values: list[T] = []
        functools.update_wrapper(self, make)
        _all.append(self)  # type: ignore[arg-type]

    def __call__(self) -> T:
        """Returns the value."""
        with _lock:
            if not self._values:
                self._values.append(self._make())
            return self._values[0]


def forget() -> None:
    """Forgets what this process knows of the installed plugins: the next use scans again.

    All values at once: they are made from one another (the registry from the scan), and one that is older than another
    would be wrong.
    """
    with _lock:
        for once in _all:
            once._values.clear()
