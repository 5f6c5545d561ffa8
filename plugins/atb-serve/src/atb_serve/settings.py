# SPDX-License-Identifier: Apache-2.0
"""Settings of a server: what a request may ask for, and who may ask."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from atb_core.errors import SettingsError

_KEY = re.compile(r"[\x21-\x7e]{1,512}")
_MAX_KEY_FILE = 1 << 16


@dataclass(frozen=True)
class Limits:
    """Largest values of what one request may ask for; above them it is refused with the parameter's name.

    Attributes:
        max_body_bytes: Size of a request's body.
        max_prompts: Number of prompts in one request.
        max_n: Completions of each prompt.
        max_tokens: Tokens of one completion; `None`: as many as the context holds.
        max_stop: Stop strings.
        max_logprobs: Most probable tokens at each position.
        max_logit_bias: Token ids with a bias.
        max_tools: Functions.
        max_adapters: Adapters in memory; requests load no further ones.
        max_queue_len: Completions that wait; further requests get status 429.
        body_timeout: Seconds in which the head of a request must have arrived, and then its body.
        request_timeout: Seconds in which an answer must be complete.
        idle_timeout: Seconds for which a client may leave a stream unread.
    """

    max_body_bytes: int = 8 << 20
    max_prompts: int = 128
    max_n: int = 16
    max_tokens: int | None = None
    max_stop: int = 16
    max_logprobs: int = 20
    max_logit_bias: int = 1024
    max_tools: int = 128
    max_adapters: int = 64
    max_queue_len: int = 256
    body_timeout: float = 30.0
    request_timeout: float = 1800.0
    idle_timeout: float = 60.0


@dataclass
class Access:
    """Rules for who may use the server.

    Attributes:
        key_hashes: SHA-256 of each key; without one, everybody may. They may change while the server runs.
        hosts: Names in the header `Host` that are answered, without ports; `None`: all. A page of another site that a
            browser shows could otherwise reach a server on the same machine under a name of its own.
    """

    key_hashes: frozenset[bytes] = frozenset()
    hosts: frozenset[str] | None = None

    def allows_key(self, key: str) -> bool:
        """Returns True if `key` is one of the server's; a wrong one takes the same time whatever it has in common."""
        given = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        return any(hmac.compare_digest(given, known) for known in self.key_hashes)

    def allows_host(self, host: str) -> bool:
        """Returns True if the server answers under the name in the header `Host`, which every browser sends."""
        if self.hosts is None or not host:
            return True
        name = host[: host.rfind("]") + 1] if host.startswith("[") else host.partition(":")[0]
        return name.lower() in self.hosts


@dataclass(frozen=True)
class ServeSettings:
    """All settings of a server.

    Attributes:
        limits: What a request may ask for.
        access: Who may ask.
        log_texts: The lines of the log have prompts and answers.
        lora_dir: Folder of the adapters that requests may load; `None`: they may load none.
    """

    limits: Limits = field(default_factory=Limits)
    access: Access = field(default_factory=Access)
    log_texts: bool = False
    lora_dir: Path | None = None


def hashed_keys(keys: Iterable[str], key_file: Path | None = None) -> frozenset[bytes]:
    """Returns the hashes of keys, and of those that a file holds, one a line.

    Raises:
        SettingsError: A key has spaces or is not ASCII, or the file cannot be read or holds none.
    """
    found = list(keys)
    if key_file is not None:
        found += _keys_in(key_file)
    for key in found:
        if not _KEY.fullmatch(key):
            raise SettingsError(
                "An API key is empty, longer than 512 characters, or has spaces or characters that are not ASCII",
                hint="`openssl rand -hex 32` makes one.",
            )
    return frozenset(hashlib.sha256(key.encode()).digest() for key in found)


def _keys_in(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_KEY_FILE + 1).decode()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise SettingsError(f"The file of API keys, {path}, cannot be read: {reason}") from None
    keys = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not keys or len(text) > _MAX_KEY_FILE:
        raise SettingsError(f"The file of API keys, {path}, is empty or too large", hint="Write one key a line.")
    return keys
