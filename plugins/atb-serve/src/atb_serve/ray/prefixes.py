# SPDX-License-Identifier: Apache-2.0
"""Remembers which replica has computed which beginnings of prompts."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

# Bytes of a request's JSON that one key stands for, some tens of tokens: less is not worth a longer queue.
CHUNK = 256
# A longer common beginning than this is not told from it.
_MAX_KEYS = 256
_MAX_REMEMBERED = 1 << 17
# What comes before the tokens of a prompt, in the order in which chat templates write it.
_FIELDS = ("model", "tools", "instructions", "messages", "prompt", "input")


def prefix_keys(body: bytes) -> tuple[bytes, ...]:
    """Returns a key for each beginning of a request's prompt; two prompts have those of their common beginning.

    Args:
        body: JSON of the request. One that is none has no keys; the replica says what is wrong.
    """
    try:
        request: Any = msgspec.json.decode(body)
        if not isinstance(request, dict):
            return ()
        text = msgspec.json.encode([request[name] for name in _FIELDS if name in request])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return ()
    keys: list[bytes] = []
    for start in range(0, min(len(text), CHUNK * _MAX_KEYS) - CHUNK + 1, CHUNK):
        before = keys[-1] if keys else b""
        keys.append(hashlib.blake2b(before + text[start : start + CHUNK], digest_size=8).digest())
    return tuple(keys)


class PrefixTable:
    """Chooses among replicas by what they have computed and by their load.

    A replica whose load is more than `slack` above the least one is passed over: computing the beginning again takes
    less time than waiting behind so many requests. What has not been asked for the longest time is forgotten first.

    Args:
        slack: Requests that a replica may have more than another one.
        size: Number of beginnings that are remembered.
    """

    def __init__(self, slack: int = 8, size: int = _MAX_REMEMBERED) -> None:
        self._slack, self._size = slack, size
        self._holders: OrderedDict[bytes, set[str]] = OrderedDict()

    def choose(self, keys: Sequence[bytes], loads: Mapping[str, int]) -> list[str]:
        """Returns the replicas that have the longest beginning; all that are not too busy if none has any.

        Args:
            keys: Those of the prompt, by `prefix_keys`.
            loads: Number of requests of each replica.
        """
        least = min(loads.values(), default=0)
        chosen = [name for name, load in loads.items() if load <= least + self._slack]
        for key in keys:
            holders = self._holders.get(key, ())
            longer = [name for name in chosen if name in holders]
            if not longer:
                break
            chosen = longer
        return chosen

    def note(self, keys: Sequence[bytes], replica: str) -> None:
        """Remembers that a replica computes a prompt."""
        # A longer beginning is forgotten before the shorter ones that lead to it.
        for key in reversed(keys):
            self._holders.setdefault(key, set()).add(replica)
            self._holders.move_to_end(key)
        while len(self._holders) > self._size:
            self._holders.popitem(last=False)

    def keep(self, replicas: Collection[str]) -> None:
        """Forgets what other replicas have; they are gone."""
        for key, holders in list(self._holders.items()):
            holders.intersection_update(replicas)
            if not holders:
                del self._holders[key]
