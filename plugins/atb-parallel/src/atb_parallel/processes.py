# SPDX-License-Identifier: Apache-2.0
"""The other processes of a group, seen from the first one."""

from __future__ import annotations

import os
import subprocess
import sys
from abc import ABC, abstractmethod
from contextlib import suppress
from multiprocessing.connection import Pipe

from atb_parallel.channel import Channel

_SECONDS_TO_END = 2.0
# With this process's search path, so that both import the same; the path stands in the arguments.
_START = "import sys; sys.path[:] = sys.argv[1].split('\\n'); from atb_parallel.follower import main; main()"


class Follower(ABC):
    """Another process of the group, seen from the first one."""

    def __init__(self, rank: int, channel: Channel) -> None:
        self.rank = rank
        self.channel = channel

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
        with suppress(OSError):
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
