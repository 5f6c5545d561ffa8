# SPDX-License-Identifier: Apache-2.0
"""Groups whose processes another program started, such as torchrun: how rank 0 and the others find each other.

They have torch's variables `MASTER_ADDR` and `MASTER_PORT`, where a store of torch.distributed is. Rank 0 listens and
writes its port and a key of this run to the store; the others connect, and both sides prove that they have the key.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import struct
import threading
import time
from contextlib import suppress
from datetime import timedelta
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from typing import Any

from atb_core.errors import EngineError, RequestError
from atb_parallel.channel import Channel, Kind
from atb_parallel.follower import serve
from atb_parallel.processes import Follower

_SECONDS_TO_MEET = 300.0
_SECONDS_TO_PROVE = 10
_STORE_KEY = "atb_parallel/rank_0"
# A machine that is gone without a word: probes after 2 seconds, and nothing may stay unanswered for 5.
_KEEPALIVE = {
    socket.TCP_KEEPIDLE: 2, socket.TCP_KEEPINTVL: 1, socket.TCP_KEEPCNT: 3, socket.TCP_USER_TIMEOUT: 5000,
}  # fmt: skip


class Joined(Follower):
    """A process that another program started, which connected to this one."""

    def __init__(self, rank: int, channel: Channel, where: str) -> None:
        super().__init__(rank, channel)
        self._where = where

    def part(self, failure: str | None) -> None:
        """Tells the process that the group has ended, and why if it failed."""
        with suppress(OSError):
            self.channel.send(Kind.END, 0, (failure or "").encode())
        self.channel.close()

    def end(self) -> None:
        """Returns at once: the program that started the process waits for it."""

    def death(self) -> str:
        """Returns which process it is."""
        return f"rank {self.rank} ({self._where}) ended or cannot be reached any more"


def joined(world_size: int) -> list[Follower]:
    """Returns the other processes of a group, as rank 0, once all have connected.

    Raises:
        EngineError: one did not come in time, or there is no place to meet.
        RequestError: the environment does not say where to meet.
    """
    store = _store(0, world_size)
    alone = os.environ.get("LOCAL_WORLD_SIZE") == str(world_size)
    host, key = "127.0.0.1" if alone else os.environ["MASTER_ADDR"], secrets.token_hex(32)
    with _listener(alone) as listener:
        store.set(_STORE_KEY, json.dumps({"host": host, "port": listener.getsockname()[1], "key": key}))
        others: dict[int, Follower] = {}
        deadline = time.monotonic() + _SECONDS_TO_MEET
        while len(others) < world_size - 1:
            listener.settimeout(max(0.1, deadline - time.monotonic()))
            try:
                connection = listener.accept()[0]
            except TimeoutError:
                missing = sorted(set(range(1, world_size)) - others.keys())
                raise EngineError(f"ranks {missing} did not connect within {_SECONDS_TO_MEET:.0f} seconds") from None
            if (channel := _proven(connection, bytes.fromhex(key), answers_first=False)) is None:
                continue
            hello = channel.receive().json()
            if not 0 < hello["rank"] < world_size or hello["rank"] in others:
                raise EngineError(f"{hello['where']} is rank {hello['rank']}, which there is not, or another one is")
            others[hello["rank"]] = Joined(hello["rank"], channel, hello["where"])
    return [others[rank] for rank in sorted(others)]


def follow(rank: int, world_size: int) -> None:
    """Runs this process as rank `rank`, above 0, of a group that another program started, until rank 0 closes it.

    Raises:
        EngineError: rank 0 cannot be found or has ended, or a process of the group failed.
        RequestError: the environment does not say where to meet.
    """
    # Ctrl-C in a terminal is sent to all processes; only the first one must handle it.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    store = _store(rank, world_size)
    try:
        store.wait([_STORE_KEY], timedelta(seconds=_SECONDS_TO_MEET))
        place = json.loads(store.get(_STORE_KEY))
        connection = socket.create_connection((place["host"], place["port"]), timeout=_SECONDS_TO_PROVE)
    # torch raises subclasses of RuntimeError.
    except (RuntimeError, OSError) as error:
        raise EngineError(f"rank {rank} does not reach rank 0: {error}") from None
    channel = _proven(connection, bytes.fromhex(place["key"]), answers_first=True)
    if channel is None:
        raise EngineError(f"what rank {rank} found at {place['host']}:{place['port']} is not rank 0 of this group")
    channel.send_json(Kind.JOIN, {"rank": rank, "where": f"process {os.getpid()} on {socket.gethostname()}"})
    name = f"rank {rank} of {world_size}"
    end = serve(channel, name)
    if end is None:
        raise EngineError(f"{name} ends: rank 0 ended or cannot be reached any more")
    if end:
        raise EngineError(f"{name} ends: {end}")


def _store(rank: int, world_size: int) -> Any:
    """Returns the store of torch.distributed that all processes have in common."""
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise RequestError(
            f"world_size={world_size}: the processes do not find each other without {' and '.join(missing)}",
            hint="Start them with torchrun, which sets these variables, or set them to rank 0's host and a free port.",
        )
    try:
        from torch.distributed.rendezvous import rendezvous

        timeout = timedelta(seconds=_SECONDS_TO_MEET)
        return next(iter(rendezvous("env://", rank, world_size, timeout=timeout)))[0]
    except ImportError:
        raise EngineError(
            "processes that another program starts meet by torch.distributed, and torch is not installed",
            hint="Install torch, or let tensor_parallel_size (--tp) start the processes.",
        ) from None
    except (RuntimeError, ValueError, OSError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise EngineError(f"rank {rank} finds no store of torch.distributed at {place}: {error}") from None


def _listener(alone: bool) -> socket.socket:
    if alone or not socket.has_dualstack_ipv6():
        return socket.create_server(("127.0.0.1" if alone else "", 0))
    return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)


def _proven(connection: socket.socket, key: bytes, *, answers_first: bool) -> Channel | None:
    """Returns a channel over a connection whose other end has the key, `None` for any other."""
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE.items():
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", _SECONDS_TO_PROVE, 0))
    duplex = Connection(connection.detach())
    steps = [deliver_challenge, answer_challenge]
    try:
        for step in reversed(steps) if answers_first else steps:
            step(duplex, key)
    # Python asserts that the other side begins as it does itself.
    except (AuthenticationError, AssertionError, ValueError, EOFError, OSError):
        duplex.close()
        return None
    _wait_without_limit(duplex)
    return Channel(duplex)


def _wait_without_limit(connection: Connection) -> None:
    with socket.socket(fileno=os.dup(connection.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 0))
