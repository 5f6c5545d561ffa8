# SPDX-License-Identifier: Apache-2.0
"""Readers that fail in each way that the session must notice."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path

from fuzz.readers import Reader

from atb_core.errors import AtbError


def _refuse(folder: Path) -> None:
    raise AtbError("it is refused")


READERS = {
    "crash": Reader(lambda: [{"a.txt": b"a"}], (".txt",), lambda folder: ctypes.string_at(0)),
    "exit": Reader(lambda: [{"a.txt": b"a"}], (".txt",), lambda folder: os._exit(0)),
    "hunger": Reader(lambda: [{"a.txt": b"a"}], (".txt",), lambda folder: bytearray(1 << 32)),
    "hang": Reader(lambda: [{"a.txt": b"a"}], (".txt",), lambda folder: time.sleep(1000)),
    "raw": Reader(lambda: [{"a.txt": b"a"}], (".txt",), lambda folder: 1 // 0),
    "protocol": Reader(lambda: [{"a.txt": b"a"}], (".txt",), lambda folder: print('{"end": 0, "problem": null}')),
    "refusal": Reader(lambda: [{"a.txt": b"a"}], (".txt",), _refuse),
}
