# SPDX-License-Identifier: Apache-2.0
"""Sends a server what clients send it, good and bad: `python soak_client.py URL COUNT EXPECTED`.

EXPECTED is a file with `{prompt: [text, [logprob, ...]]}`, the answers of each prompt alone. The program prints a line
after each hundred requests, `{"done": 100}`, and at the end the number of requests of each kind and the wrong answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

AT_A_TIME = 24
TOKENS = 24


class Soak:
    """The clients; `wrong` collects what was not as it has to be."""

    def __init__(self, url: str, expected: dict[str, Any], seed: int) -> None:
        host, port = url.removeprefix("http://").split(":")
        self._address = host, int(port)
        self._expected, self._random = expected, random.Random(seed)
        self.kinds: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._kinds: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self.good, 8), (self.good_stream, 8), (self.cancelled, 6), (self.slow_reader, 2), (self.oversized, 1),
            (self.bad_json, 2), (self.bad_unicode, 2), (self.half_a_body, 1), (self.hopeless, 2),
        ]  # fmt: skip

    async def run(self, count: int) -> None:
        """Sends `count` requests, `AT_A_TIME` at a time."""
        numbers = iter(range(1, count + 1))

        async def work() -> None:
            for number in numbers:
                (kind,) = self._random.choices([k for k, _ in self._kinds], [w for _, w in self._kinds])
                self.kinds[kind.__name__] += 1
                try:
                    await asyncio.wait_for(kind(), 300)
                except Exception as error:
                    self.wrong.append(f"{kind.__name__}: {type(error).__name__} {error}")
                if number % 100 == 0:
                    print(json.dumps({"done": number}), flush=True)

        await asyncio.gather(*(work() for _ in range(AT_A_TIME)))

    async def good(self) -> None:
        """A whole answer, compared bit for bit with the answer alone."""
        prompt = self._prompt()
        status, body = await self._ask(json.dumps(self._body(prompt)).encode())
        choice = json.loads(body)["choices"][0] if status == 200 else None
        self._compare(prompt, status, choice and choice["text"], choice and choice["logprobs"]["token_logprobs"])

    async def good_stream(self) -> None:
        """An answer in events, compared likewise."""
        prompt = self._prompt()
        status, body = await self._ask(json.dumps(self._body(prompt, stream=True)).encode())
        events = [line[6:] for line in body.decode().splitlines() if line.startswith("data: {")]
        choices = [json.loads(each)["choices"][0] for each in events]
        logprobs = [value for each in choices if each["logprobs"] for value in each["logprobs"]["token_logprobs"]]
        self._compare(prompt, status, "".join(each["text"] for each in choices), logprobs)

    async def cancelled(self) -> None:
        """A client that leaves, before or within the answer."""
        stream = self._random.random() < 0.7
        # Long enough for blocks that are kept, and never the same.
        prompt = f"{self._random.random()}" * 16
        reader, writer = await self._send(json.dumps(self._body(prompt, stream=stream, n=2)).encode())
        if stream and self._random.random() < 0.7:
            await reader.read(self._random.randrange(1, 2000))
        else:
            await asyncio.sleep(self._random.random() * 0.05)
        writer.transport.abort()

    async def slow_reader(self) -> None:
        """A client that reads a few bytes at a time."""
        prompt = self._prompt()
        reader, writer = await self._send(json.dumps(self._body(prompt, stream=True)).encode())
        data = b""
        while piece := await reader.read(300):
            data += piece
            await asyncio.sleep(0.005)
        writer.close()
        if b"[DONE]" not in data:
            self.wrong.append(f"slow_reader: {data[-200:]!r}")

    async def oversized(self) -> None:
        """A body that is too large, of which the server reads the beginning."""
        # The server may close the connection while the body is written.
        with contextlib.suppress(ConnectionError):
            await self._expect({413}, b'{"prompt": "' + b"x" * (1 << 20))

    async def bad_json(self) -> None:
        """A body that is no JSON, or not of the form."""
        bad = [b"", b"{", b'{"prompt": ', b"[[[[", b'{"prompt": 1}', b'{"prompt": "a", "prompt": }', b"[" * 5000, b"\0",
               b'{"prompt": "a", "max_tokens": 1e400}', b'{"prompt": "a", "n": -1}']  # fmt: skip
        await self._expect({400}, self._random.choice(bad))

    async def bad_unicode(self) -> None:
        """A body with bytes or escapes that are no Unicode."""
        bad = [b'{"prompt": "\xff\xfe"}', b'{"prompt": "\\ud800"}', b'{"prompt": "a", "stop": ["\\udfff"]}',
               b'{"prompt": "\xed\xa0\x80"}']  # fmt: skip
        await self._expect({400}, self._random.choice(bad))

    async def half_a_body(self) -> None:
        """A client that leaves within its body."""
        _, writer = await self._send(b'{"prompt": "a', length=1000)
        await asyncio.sleep(self._random.random() * 0.02)
        writer.transport.abort()

    async def hopeless(self) -> None:
        """A request that is well-formed and cannot be served."""
        changes: list[dict[str, Any]] = [
            {"prompt": "x" * 2000}, {"prompt": []}, {"model": "none"}, {"stop": [""]}, {"logit_bias": {"99999": 1}},
            {"prompt": [10**6]}, {"structured_outputs": {"regex": "("}}, {"temperature": -1},
        ]  # fmt: skip
        body = {**self._body("a"), **self._random.choice(changes)}
        await self._expect({400, 404}, json.dumps(body).encode())

    def _prompt(self) -> str:
        return self._random.choice(list(self._expected))

    def _body(self, prompt: str, **further: Any) -> dict[str, Any]:
        return {"prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "logprobs": 0, **further}

    def _compare(self, prompt: str, status: int, text: str | None, logprobs: Any) -> None:
        if status != 200 or [text, logprobs] != self._expected[prompt]:
            self.wrong.append(f"{status} {text!r} {logprobs}, expected {self._expected[prompt]}")

    async def _expect(self, statuses: set[int], data: bytes) -> None:
        status, body = await self._ask(data)
        if status not in statuses:
            self.wrong.append(f"{data[:100]!r}: status {status} {body[:200]!r}")

    async def _ask(self, data: bytes) -> tuple[int, bytes]:
        reader, writer = await self._send(data)
        try:
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
        return int(head.split()[1]), _joined(body) if b"transfer-encoding: chunked" in head.lower() else body

    async def _send(self, data: bytes, length: int | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*self._address)
        writer.write(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            % (len(data) if length is None else length)
            + data
        )
        await writer.drain()
        return reader, writer


def _joined(body: bytes) -> bytes:
    """Returns the contents of a body in chunks."""
    pieces = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        pieces.append(rest[: int(size, 16)])
        body = rest[int(size, 16) + 2 :]
    return b"".join(pieces)


if __name__ == "__main__":
    url, count, expected = sys.argv[1:]
    soak = Soak(url, json.loads(Path(expected).read_text(encoding="utf-8")), seed=0)
    asyncio.run(soak.run(int(count)))
    print(json.dumps({"kinds": soak.kinds, "wrong": soak.wrong[:20], "num_wrong": len(soak.wrong)}), flush=True)
