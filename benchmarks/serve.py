# SPDX-License-Identifier: Apache-2.0
"""Compares 32 streams of a server with `ModelRunner.generate` on the same prompts, and their first tokens.

`python benchmarks/serve.py MODEL --rounds 5`: each round runs both, in alternating order, on new prompts. The server is
a process of its own; its clients, in this one, read bytes and count events, so that they take little of the processor.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from atb_core import ModelRunner, SamplingParams

PROMPT_TOKENS = 16
FIRST_TOKENS = 15


class Clients:
    """Clients of the server at a port of this machine."""

    def __init__(self, port: int, vocab_size: int) -> None:
        self._port, self._vocab_size = port, vocab_size
        self._random = random.Random(0)

    def prompts(self, count: int) -> list[list[int]]:
        """Returns new prompts, of which no cache has anything."""
        return [[self._random.randrange(100, self._vocab_size) for _ in range(PROMPT_TOKENS)] for _ in range(count)]

    async def stream(self, prompt: list[int], max_tokens: int) -> float:
        """Reads an answer and returns the seconds to its first event."""
        body = {"prompt": prompt, "max_tokens": max_tokens, "ignore_eos": True, "temperature": 0, "stream": True}
        data = json.dumps(body).encode()
        begin = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data) + data
        )
        got, first = b"", 0.0
        while piece := await reader.read(1 << 16):
            first = first or (time.perf_counter() - begin if b"data: {" in piece else 0.0)
            got = got[-20:] + piece
        writer.close()
        if b"data: [DONE]" not in got:
            raise RuntimeError(f"the server did not answer: {got!r}")
        return first

    async def together(self, prompts: list[list[int]], max_tokens: int) -> None:
        """Reads the answers to all prompts at a time."""
        await asyncio.gather(*(self.stream(prompt, max_tokens) for prompt in prompts))


def seconds(call: Callable[[], object]) -> float:
    """Returns the time of a call."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def first_token(runner: ModelRunner, prompt: list[int]) -> float:
    """Returns the seconds to the first token of `generate`."""
    begin = time.perf_counter()
    chunks = runner.generate([prompt], SamplingParams(max_tokens=2, ignore_eos=True), stream=True)
    next(chunks)
    found = time.perf_counter() - begin
    list(chunks)
    return found


def compare(runner: ModelRunner, clients: Clients, arguments: argparse.Namespace) -> None:
    """Measures and prints."""
    params = SamplingParams(max_tokens=arguments.max_tokens, ignore_eos=True)
    count, ratios = arguments.streams * arguments.max_tokens, []
    for number in range(arguments.rounds + 1):
        tasks = {
            "generate": lambda: runner.generate(clients.prompts(arguments.streams), params),
            "served": lambda: asyncio.run(clients.together(clients.prompts(arguments.streams), arguments.max_tokens)),
        }
        order = sorted(tasks, reverse=bool(number % 2))
        took = {name: seconds(tasks[name]) for name in order}
        if number:  # the first round builds graphs
            ratios.append(took["generate"] / took["served"])
            print(*(f"{name} {count / took[name]:.1f} tok/s" for name in tasks), f"ratio {ratios[-1]:.3f}", flush=True)
    print(f"served / generate: median {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}")
    pairs = [
        (first_token(runner, one), asyncio.run(clients.stream(other, 2)))
        for one, other in (clients.prompts(2) for _ in range(FIRST_TOKENS))
    ]
    own, served = (1000 * statistics.median(times) for times in zip(*pairs, strict=True))
    print(f"first token: generate {own:.1f} ms, served {served:.1f} ms")


def main() -> None:
    """Starts the server and compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--max-tokens", type=int, default=128)
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "atb_cli", "serve", arguments.model, "--port", "0", "--max-model-len", "2048"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        address = next((line for line in server.stderr if " is served at http" in line), None)
        if address is None:
            sys.exit("the server did not start")
        port = int(address.partition("127.0.0.1:")[2].partition("/")[0])
        with ModelRunner(arguments.model, max_model_len=2048) as runner:
            compare(runner, Clients(port, runner.vocab_size), arguments)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
