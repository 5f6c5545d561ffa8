# SPDX-License-Identifier: Apache-2.0
"""The other processes of a group, seen from the first one, and the end of all of them."""

from __future__ import annotations

import logging
import os
import select
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections import deque
from multiprocessing.connection import Pipe

from atb_parallel.channel import Channel, Message

_log = logging.getLogger(__name__)
_SECONDS_TO_END = 2.0
# With this process's search path, so that both import the same; the path stands in the arguments.
_START = "import sys; sys.path[:] = sys.argv[1].split('\\n'); from atb_parallel.follower import main; main()"


class Follower(ABC):
    """Another process of the group, seen from the first one.

    Attributes:
        rank: its number.
        channel: the connection to it.
        unread: bytes that were sent to it and that it may not have read.
        early: messages that came before they were expected.
    """

    def __init__(self, rank: int, channel: Channel) -> None:
        self.rank = rank
        self.channel = channel
        self.unread = 0
        self.early: deque[Message] = deque()

    @abstractmethod
    def part(self, failure: str | None) -> None:
        """Closes the connection, by which the process ends; `failure` says why the group failed, if it did."""

    @abstractmethod
    def end(self) -> None:
        """Waits until the process has ended."""

    @abstractmethod
    def death(self) -> str:
        """Returns how the process ended."""


class Started(Follower):
    """A process that this one starts."""

    def __init__(self, rank: int) -> None:
        ours, theirs = Pipe()
        super().__init__(rank, Channel(ours))
        with theirs:
            paths = "\n".join(map(os.path.abspath, sys.path))
            self.process = subprocess.Popen(
                [sys.executable, "-c", _START, paths, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                # As torchrun tells them, the number of the device.
                env={**os.environ, "LOCAL_RANK": str(rank)},
                # Ctrl-C in a terminal is sent to the whole process group; only the first process must handle it.
                start_new_session=True,
            )

    def part(self, failure: str | None) -> None:
        """Closes the connection, by which the process ends."""
        self.channel.close()

    def end(self) -> None:
        """Waits a little for the process, then kills it."""
        try:
            self.process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def death(self) -> str:
        """Returns how the process ended."""
        try:
            code = self.process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            return f"rank {self.rank} (process {self.process.pid}) closed its connection"
        return f"rank {self.rank} (process {self.process.pid}) ended with exit code {code}"


class Members:
    """The other processes of a group: they end together.

    Attributes:
        followers: the processes.
        failure: why they have ended; `None` if they have not, or were not needed any more.
    """

    def __init__(self) -> None:
        self.followers: list[Follower] = []
        self.failure: str | None = None
        self.have_ended = False
        # Garbage that is collected meanwhile may be the group's first process, which ends them, too.
        self._lock = threading.RLock()

    def end(self, failure: str | None = None) -> bool:
        """Ends all processes, and returns once they have ended; returns true if they had not been ended before."""
        with self._lock:
            if self.have_ended:
                return False
            self.have_ended, self.failure = True, failure
            # All learn of the end before it waits for one of them.
            for each in self.followers:
                each.part(failure)
            for each in self.followers:
                each.end()
            return True

    def watch(self) -> None:
        """Ends all as soon as one has ended, also while no step runs."""
        threading.Thread(target=self._watch, name="atb-parallel", daemon=True).start()

    def _watch(self) -> None:
        poller, numbers = select.poll(), {each.channel.fileno(): each for each in self.followers}
        for number in numbers:
            poller.register(number, select.POLLRDHUP)
        number, _ = poller.poll()[0]
        # The connections of a group that has ended are shut down, too.
        if not self.have_ended and self.end(failure := loss_of(numbers[number])):
            _log.error("%s", failure)


def loss_of(follower: Follower) -> str:
    """Returns a sentence about a process that has ended."""
    return f"{follower.death()}, so the model is gone"
