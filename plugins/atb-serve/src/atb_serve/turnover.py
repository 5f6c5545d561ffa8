# SPDX-License-Identifier: Apache-2.0
"""Estimates when a full queue is worked off, from how quickly requests end."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

from atb_core.errors import QueueFullError

# Requests that ended last count: their mean follows the load, and bursts of a batch that ends together are in it.
_NUM_ENDS = 64
# A client that waited for longer would rather ask another server.
_LONGEST = 60


class BusyError(QueueFullError):
    """Error for a full queue.

    Args:
        message: What is full.
        retry_after: Seconds after which to try again.
    """

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message, hint="Try again in a while.")
        self.retry_after = retry_after


class Turnover:
    """Measures the time between the ends of requests, while there are any.

    Args:
        clock: Seconds of a monotonic clock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._num_running = 0
        self._since = 0.0
        self._gaps: deque[float] = deque(maxlen=_NUM_ENDS)

    def begin(self) -> None:
        """Notes a request; one that comes when there is no other starts the clock."""
        if not self._num_running:
            self._since = self._clock()
        self._num_running += 1

    def end(self) -> None:
        """Notes that a request has ended, however it did."""
        now = self._clock()
        self._gaps.append(now - self._since)
        self._since = now
        self._num_running -= 1

    def seconds_for(self, count: int) -> int:
        """Returns the whole seconds, from 1 to 60, in which as many requests end at the present rate."""
        ended, num_ended = sum(self._gaps), len(self._gaps)
        # If none has ended for longer than usual, that is part of the rate, unless there was none.
        current = self._clock() - self._since if self._num_running else 0.0
        mean = max(ended / max(1, num_ended), (ended + current) / (num_ended + 1))
        return min(_LONGEST, max(1, math.ceil(count * mean)))

    def full(self, count: int, what: str) -> BusyError:
        """Returns the error for a request that finds as many waiting."""
        return BusyError(f"{count} {what} wait already, which is the limit", self.seconds_for(count))
