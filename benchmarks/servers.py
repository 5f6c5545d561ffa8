# SPDX-License-Identifier: Apache-2.0
"""Starts servers of OpenAI's API, and asks them by many clients that take little of the processor."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

PROMPT_TOKENS = 16
_START_SECONDS = 300
_COMPLETION_TOKENS = re.compile(rb'"completion_tokens": ?(\d+)')


def atb(model: str, *options: str) -> list[str]:
    """Returns the command of `atb serve` in this environment."""
    return [sys.executable, "-m", "atb_cli", "serve", model, "--no-log-requests", *options]


@dataclass(frozen=True)
class Server:
    """A running server."""

    port: int
    pid: int

    def processor_seconds(self) -> float:
        """Returns the processor time that its process has taken; 0 without `/proc`."""
        stat = Path(f"/proc/{self.pid}/stat")
        if not stat.exists():
            return 0.0
        fields = stat.read_text().rpartition(")")[2].split()  # the name may have spaces
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def serving(command: Sequence[str]) -> Iterator[Server]:
    """Runs a server that takes `--port`, and yields it once `/health` answers 200."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    with ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile())
        process = subprocess.Popen([*command, "--port", str(port)], stdout=log, stderr=log)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        end = time.monotonic() + _START_SECONDS
        while not _is_healthy(port):
            if process.poll() is not None or time.monotonic() > end:
                log.seek(0)
                sys.exit(f"{command[0]} did not start:\n{log.read()[-2000:].decode(errors='replace')}")
            time.sleep(0.2)
        yield Server(port, process.pid)


def _is_healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=60) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.HTTPError):
        return False


class Clients:
    """Clients of the server at a port of this machine; they read bytes and look for events.

    Args:
        port: Its port.
        vocab_size: Prompts are random token ids below it.
        seed: Of the prompts; servers that are compared get the same.
    """

    def __init__(self, port: int, vocab_size: int, seed: int = 0) -> None:
        self._port, self._vocab_size, self._random = port, vocab_size, random.Random(seed)

    def prompts(self, count: int, length: int = PROMPT_TOKENS) -> list[list[int]]:
        """Returns new prompts, of which no cache has anything."""
        return [[self._random.randrange(100, self._vocab_size) for _ in range(length)] for _ in range(count)]

    async def stream(
        self, prompt: list[int], max_tokens: int, on_events: Callable[[float, int], object] | None = None
    ) -> float:
        """Reads an answer and returns the seconds to its first event.

        Args:
            prompt: Token ids.
            max_tokens: Tokens of the answer, which goes on after an end token.
            on_events: Is called whenever events have come, with the clock and the number of tokens so far. One that is
                a part of a character has no event: it comes with the next one.
        """
        body = {
            "prompt": prompt, "max_tokens": max_tokens, "ignore_eos": True, "temperature": 0, "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": on_events is not None},
        }  # fmt: skip
        data = json.dumps(body).encode()
        begin = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(
                b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data) + data
            )
            end, first = b"", 0.0
            while piece := await reader.read(1 << 16):
                now = time.perf_counter()
                if b"data: {" in piece:
                    first = first or now - begin
                end = (end + piece)[-4000:]
                if on_events is not None and (counts := _COMPLETION_TOKENS.findall(end)):
                    on_events(now, int(counts[-1]))
        finally:
            writer.close()
        counts = _COMPLETION_TOKENS.findall(end)
        if b"data: [DONE]" not in end or not counts or int(counts[-1]) != max_tokens:
            raise RuntimeError(f"the server did not answer with {max_tokens} tokens: {end!r}")
        return first

    async def together(self, prompts: list[list[int]], max_tokens: int) -> None:
        """Reads the answers to all prompts at a time."""
        await asyncio.gather(*(self.stream(prompt, max_tokens) for prompt in prompts))
