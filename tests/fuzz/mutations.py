# SPDX-License-Identifier: Apache-2.0
"""Changes to the bytes of a file, and to the structure of the JSON in one; all of them follow from a generator."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

_INTEGERS = (0, 1, 2, 3, 7, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**63)
_TEXTS = (
    "", " ", "\0", "\x1b[2J\x1b[31m", "‮", "﻿", "../../etc/passwd", "/dev/zero", "{{", "%s%n", "é" * 3, "\\u0000",
    "x" * 100_000, "None", "true", "1e5", "ACL_BF16", "bfloat16", "a.b.c" * 50, "\n\n",
)  # fmt: skip
# Values that `json.dumps` would not write: they are put in by their text.
_RAW = (
    "NaN", "-Infinity", "1e999", "-1e999", "9" * 400, "-" + "9" * 5000, "1" + "0" * 30, '"\\ud800"', '"\\udfff\\ud83d"',
    "[" * 70 + "]" * 70, "[" * 5000 + "]" * 5000, '{"a":' * 3000 + "1" + "}" * 3000, "[[],[]]", '{"a": 1, "a": 2}',
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 0.5, -0.0, 1e308, 2**31, 2**32, 2**63, 2**64, -(2**63) - 1, 10**12,
    [], {}, [[]], [None], [0], [1, 2, 3], {"a": 1}, {"": {}}, ["a", "b"], [["a", 1]], [{}] * 3,
)  # fmt: skip
_MARK = "@raw@"


def mutate(rng: Random, name: str, data: bytes) -> bytes:
    """Returns the content of the file `name` with one to three changes."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        change = _change_bytes
        if name.endswith(".safetensors") and rng.random() < 0.6:
            change = _change_header
        elif name.endswith((".json", ".atbnet")) and rng.random() < 0.7:
            change = _change_json
        elif name.endswith((".toml", ".txt", ".jinja", "METADATA")) and rng.random() < 0.6:
            change = _change_lines
        data = change(rng, data)
    return data


def _change_header(rng: Random, data: bytes) -> bytes:
    """Changes the JSON of a safetensors file and keeps its length right, so that what is read is what is wrong."""
    length = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else len(data)
    if length > len(data) - 8:
        return _change_bytes(rng, data)
    header = _change_json(rng, data[8 : 8 + length])
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def _change_bytes(rng: Random, data: bytes) -> bytes:
    if not data:
        return rng.randbytes(rng.randrange(1, 40))
    # Where files of weights say what they hold is at their start.
    at = rng.randrange(len(data)) if rng.random() < 0.5 else min(int(rng.expovariate(0.01)), len(data) - 1)
    width = rng.choice((1, 2, 4, 8))
    kind = rng.randrange(7)
    if kind == 0:
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    if kind == 1:
        return data[:at] + rng.randbytes(width) + data[at + width :]
    if kind == 2:
        number = rng.choice(_INTEGERS) % 256**width
        return data[:at] + number.to_bytes(width, rng.choice(("little", "little", "big"))) + data[at + width :]
    if kind == 3:
        return data[:at]
    end = min(at + int(rng.expovariate(0.02)) + 1, len(data))
    if kind == 4:
        return data[:at] + data[end:]
    if kind == 5:
        return data[:at] + data[at:end] * rng.choice((2, 3, 100)) + data[end:]
    other = rng.randrange(len(data))
    return data[:at] + data[other : other + end - at] + data[end:]


def _change_lines(rng: Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    at, kind = rng.randrange(len(lines)), rng.randrange(6)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(at, rng.choice(lines))
    elif kind == 2:
        lines[at:at] = [lines[at]] * rng.choice((10, 1000))
    elif kind == 3:
        text = rng.choice((*_TEXTS, *map(str, _INTEGERS), "[" * 3000, "a.b." * 500, "= [", '"""', "9" * 5000))
        cut = rng.randrange(len(lines[at]) + 1)
        lines[at] = lines[at][:cut] + text.encode() + lines[at][cut:]
    elif kind == 4:
        words = lines[at].split(b" ")
        rng.shuffle(words)
        lines[at] = b" ".join(words)
    else:
        rng.shuffle(lines)
    return b"\n".join(lines)


def _change_json(rng: Random, data: bytes) -> bytes:
    try:
        document = [json.loads(data)]
    except (ValueError, RecursionError):
        return _change_bytes(rng, data)
    container, key = rng.choice(list(_places(document)))
    raw = rng.choice(_RAW)
    _edit(rng, document, container, key)
    text = json.dumps(document[0], ensure_ascii=rng.random() < 0.5)
    return text.replace(f'"{_MARK}"', raw).encode("utf-8", "surrogatepass")


def _edit(rng: Random, document: Any, container: Any, key: Any) -> None:
    """Changes the value at one place of a document, or the place."""
    value = container[key]
    edits: list[Callable[[], Any]] = [
        lambda: rng.choice(_VALUES),
        lambda: rng.choice(_VALUES),
        lambda: rng.choice(_TEXTS),
        lambda: rng.choice(_INTEGERS) * rng.choice((1, -1)),
        lambda: _MARK,
        lambda: _other(rng, document),
        lambda: [value],
        lambda: {"a": value},
        lambda: str(value) if isinstance(value, (int, float)) else value,
    ]
    if isinstance(value, bool):
        edits.append(lambda: not value)
    elif isinstance(value, (int, float)):
        edits += [lambda: value + 1, lambda: -value, lambda: value * 3, lambda: value * 10**6]
    elif isinstance(value, str):
        edits += [lambda: value + rng.choice(_TEXTS), lambda: value[: len(value) // 2], lambda: value * 100]
    elif isinstance(value, list):
        edits += [lambda: value * 2, lambda: value[::-1], lambda: value[1:], lambda: value[:50] * 2000]
    container[key] = rng.choice(edits)()
    if isinstance(container, dict) and rng.random() < 0.2:
        moved = container.pop(key)
        if rng.random() < 0.5:
            container[rng.choice((*_TEXTS, *container)) if container else ""] = moved


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in list(pairs):
        yield value, key
        yield from _places(child)


def _other(rng: Random, document: Any) -> Any:
    container, key = rng.choice(list(_places(document)))
    # A copy: a document must not contain itself.
    return json.loads(json.dumps(container[key]))
