# SPDX-License-Identifier: Apache-2.0
"""Messages between the first process of a group and another one: a kind, the number of a step, and bytes."""

from __future__ import annotations

import json
import os
import select
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import Enum
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

from atb_core.errors import EngineError
from atb_core.graph.arrays import HostArray, numpy_dtype
from atb_core.graph.dtype import DataType

_HEADER = struct.Struct("<4sI")


class Kind(Enum):
    """Kinds of messages."""

    OPEN = b"open"  # to the others: what to load
    HELLO = b"helo"  # to the first: what the process found
    READY = b"redy"  # to the first: the weights are loaded
    CACHE = b"cach"  # to the others: sizes of the cache
    ADAPTER = b"adap"  # to the others: their parts of an adapter
    STEP = b"step"  # to the others: the inputs of a step
    READS = b"read"  # to the others, and back: the process reads, so that a long message may be sent to it
    DONE = b"done"  # to the first: a step that devices sum has ended, or was refused as rank 0 refuses it
    PART = b"part"  # to the first: a term of a sum, or a part of what is gathered
    WHOLE = b"whol"  # to the others: the sum, or all parts
    JOIN = b"join"  # to the first: a process that another program started is there
    END = b"end "  # to such a process: the group has ended, and why if it failed
    ERROR = b"fail"  # to the first: why a process cannot go on


class Message(NamedTuple):
    """A message that was received."""

    kind: Kind
    step: int
    content: memoryview

    def json(self) -> Any:
        """Returns the content, which is JSON."""
        return json.loads(bytes(self.content))

    def text(self) -> str:
        """Returns the content, which is text."""
        return bytes(self.content).decode(errors="replace")


class Channel:
    """Sends and receives messages over a connection. A peer that ended raises EOFError or OSError.

    An interrupt while a message is written or read, of which the rest is missing then, ends the connection.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._arrival = select.poll()
        self._arrival.register(connection.fileno(), select.POLLIN)

    def send(self, kind: Kind, step: int = 0, *content: bytes) -> None:
        """Sends a message; waits until the system has taken all of it."""
        message = b"".join((_HEADER.pack(kind.value, step), *content))
        with self._whole_messages():
            self._connection.send_bytes(message)

    def send_json(self, kind: Kind, content: Any) -> None:
        """Sends a message whose content is JSON."""
        self.send(kind, 0, json.dumps(content).encode())

    def has_message(self, seconds: float) -> bool:
        """Returns true as soon as there is something to receive, false after a time without."""
        return self._connection.poll(seconds)

    def receive(self) -> Message:
        """Waits for a message.

        Raises:
            EngineError: the message is none of this version.
        """
        self._arrival.poll()  # an interrupt here leaves the connection usable
        with self._whole_messages():
            data = memoryview(self._connection.recv_bytes())
        try:
            kind, step = _HEADER.unpack_from(data)
            return Message(Kind(kind), step, data[_HEADER.size :])
        except (struct.error, ValueError):
            raise EngineError("another process of the group sent something that is no message") from None

    @contextmanager
    def _whole_messages(self) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:
            self.close()
            raise

    def fileno(self) -> int:
        """Returns the number of the connection's file."""
        return self._connection.fileno()

    def close(self) -> None:
        """Ends the connection, by which the peer ends too; a thread that waits for a message gets EOFError.

        The file is closed with the object: while a thread waits, its number must not become another file's.
        """
        with suppress(OSError), socket.socket(fileno=os.dup(self.fileno())) as same:
            same.shutdown(socket.SHUT_RDWR)


def packed(fields: Mapping[str, Any], arrays: Mapping[str, HostArray]) -> bytes:
    """Returns fields (JSON) and arrays as bytes, which `unpacked` reads."""
    table = [(name, array.dtype.name, array.shape) for name, array in arrays.items()]
    head = json.dumps({"fields": fields, "arrays": table}).encode()
    parts = [np.ascontiguousarray(array).tobytes() for array in arrays.values()]
    return b"".join((struct.pack("<I", len(head)), head, *parts))


def unpacked(data: memoryview) -> tuple[dict[str, Any], dict[str, HostArray]]:
    """Returns what `packed` got, the arrays as copies."""
    (length,) = struct.unpack_from("<I", data)
    head = json.loads(bytes(data[4 : 4 + length]))
    begin, arrays = 4 + length, {}
    for name, short, shape in head["arrays"]:
        dtype = numpy_dtype(DataType.from_short(short))
        count = int(np.prod(shape))
        arrays[name] = np.frombuffer(bytearray(data[begin : begin + count * dtype.itemsize]), dtype).reshape(shape)
        begin += count * dtype.itemsize
    return head["fields"], arrays
