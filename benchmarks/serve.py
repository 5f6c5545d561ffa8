# SPDX-License-Identifier: Apache-2.0
"""Measures `atb serve`: beside `generate`, beside llama.cpp's server, or while a long prompt arrives.

* `serve.py MODEL`: tokens a second of 32 streams, and first tokens, beside `ModelRunner.generate`;
* `serve.py FILE.gguf --against PATH/llama-server`: 32 streams of two servers of the same file, with the same prompts
  and number of threads. `--bf16` gives both a copy of the file in bfloat16;
* `serve.py MODEL --long-prompt 8000`: the gaps between the tokens of 8 streams, or of `--streams`, while a prompt of
  8,000 tokens arrives.

Servers are processes of their own. Each round runs what is compared in alternating order, on new prompts.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from checkpoints import CACHE, write_bfloat16_gguf
from servers import Clients, atb, serving

from atb_core import ModelRunner, SamplingParams
from atb_profile.bench.machine import load, machine

FIRST_TOKENS = 15
# Of clients, and of those beside a long prompt.
STREAMS, LONG_STREAMS = 32, 8
# Tokens of streams before the long prompt arrives and after it, and those of one answer: one of minutes would have a
# longer context, and longer steps, than the gaps that it is compared with.
TOKENS_BEFORE, TOKENS_AFTER, ANSWER_TOKENS = 100, 200, 256


def seconds(call: Callable[[], object]) -> float:
    """Returns the time of a call."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def in_turns(tasks: dict[str, Callable[[], object]], arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs two tasks in alternating order and prints their speeds; ratios are those of the first to the second."""
    count, (first, second) = arguments.streams * arguments.max_tokens, tasks
    rounds: list[dict[str, float]] = []
    for number in range(arguments.rounds + 1):
        took = {name: seconds(tasks[name]) for name in sorted(tasks, reverse=bool(number % 2))}
        if number:  # the first round builds graphs
            speeds = {name: count / took[name] for name in tasks}
            rounds.append({**speeds, "ratio": speeds[first] / speeds[second], "load_average": load()})
            print(*(f"{name} {speed:.1f} tok/s" for name, speed in speeds.items()), f"ratio {rounds[-1]['ratio']:.3f}",
                  f"load {load()}", flush=True)  # fmt: skip
    ratios = [one["ratio"] for one in rounds]
    print(f"{first} / {second}: median {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}")
    return {"rounds": rounds, "ratio": statistics.median(ratios)}


def first_token(runner: ModelRunner, prompt: list[int]) -> float:
    """Returns the seconds to the first token of `generate`."""
    begin = time.perf_counter()
    chunks = runner.generate([prompt], SamplingParams(max_tokens=2, ignore_eos=True), stream=True)
    next(chunks)
    found = time.perf_counter() - begin
    list(chunks)
    return found


def beside_generate(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compares streams and first tokens with those of `generate`."""
    params = SamplingParams(max_tokens=arguments.max_tokens, ignore_eos=True)
    context = ("--max-model-len", "2048", "--num-threads", str(arguments.threads))
    with (
        serving(atb(arguments.model, *context)) as server,
        ModelRunner(arguments.model, max_model_len=2048, num_threads=arguments.threads) as runner,
    ):
        clients = Clients(server.port, runner.vocab_size)
        tasks = {
            "served": lambda: asyncio.run(clients.together(clients.prompts(arguments.streams), arguments.max_tokens)),
            "generate": lambda: runner.generate(clients.prompts(arguments.streams), params),
        }
        found = in_turns(tasks, arguments)
        pairs = [
            (first_token(runner, one), asyncio.run(clients.stream(other, 2)))
            for one, other in (clients.prompts(2) for _ in range(FIRST_TOKENS))
        ]
    own, served = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(f"first token: generate {1000 * own:.1f} ms, served {1000 * served:.1f} ms")
    return {**found, "first_token": {"generate": own, "served": served}}


def beside_llama_server(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compares streams with those of llama.cpp's server, which has the same file."""
    with ModelRunner(arguments.model) as runner:
        path, vocab_size = Path(runner.model_path), runner.vocab_size
    if arguments.bf16:
        path = write_bfloat16_gguf(path, CACHE / f"{path.stem}-bf16.gguf")
    streams, threads = str(arguments.streams), str(arguments.threads)
    context = 512 + arguments.max_tokens
    ours = atb(str(path), "--max-num-seqs", streams, "--max-model-len", str(context), "--num-threads", threads,
               "--dtype", arguments.dtype)  # fmt: skip
    theirs = [arguments.against, "-m", str(path), "-np", streams, "-c", str(context * arguments.streams), "-t", threads,
              "-tb", threads]  # fmt: skip
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(serving(command)) for name, command in (("atb", ours), ("llama-server", theirs))
        }
        clients = {name: Clients(server.port, vocab_size) for name, server in servers.items()}
        used: dict[str, list[float]] = {name: [] for name in servers}

        def ask(name: str) -> None:
            before = servers[name].processor_seconds()
            asyncio.run(clients[name].together(clients[name].prompts(arguments.streams), arguments.max_tokens))
            used[name].append(servers[name].processor_seconds() - before)

        found = in_turns({name: lambda name=name: ask(name) for name in servers}, arguments)
    tokens = arguments.streams * arguments.max_tokens
    per_token = {name: statistics.median(each[1:]) / tokens for name, each in used.items()}
    print("processor time of a token:", ", ".join(f"{name} {1000 * each:.2f} ms" for name, each in per_token.items()))
    return {**found, "processor_seconds_of_a_token": per_token}


def beside_a_long_prompt(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures the gaps between the tokens of streams, alone and while a long prompt is computed."""
    with ModelRunner(arguments.model) as runner:
        vocab_size, context = runner.vocab_size, runner.max_model_len
    if arguments.long_prompt >= context:
        raise SystemExit(f"{arguments.model} holds {context} tokens, which is too few for such a prompt and an answer")
    rounds = []
    with serving(atb(arguments.model, "--num-threads", str(arguments.threads))) as server:
        clients = Clients(server.port, vocab_size)
        for number in range(arguments.rounds + 1):
            one = asyncio.run(_gaps(clients, arguments.streams, arguments.long_prompt))
            if number:  # the first round builds graphs
                rounds.append({**one, "load_average": load()})
                print(
                    f"normal gap {1000 * one['normal']:.1f} ms, the prompt took {one['seconds']:.1f} s, load {load()}"
                )
                for name in ("alone", "beside"):
                    print(f"  {name}:", ", ".join(f"{share} {gap:.2f} x" for share, gap in one[name].items()),
                          flush=True)  # fmt: skip
    largest = [one["beside"]["largest"] for one in rounds]
    print(f"largest gap / median gap alone: median {statistics.median(largest):.2f}, at most {max(largest):.2f}")
    return {"rounds": rounds, "largest": statistics.median(largest)}


async def _answers(clients: Clients, prompt: list[int], answers: list[list[tuple[float, int]]]) -> None:
    """Reads one answer after another, and notes when how many of their tokens have come."""
    while True:
        answers.append([])
        await clients.stream(prompt, ANSWER_TOKENS, lambda *event: answers[-1].append(event))


def gaps_between(events: list[tuple[float, int]]) -> list[tuple[float, float, float]]:
    """Returns begin, end and length of the gap before each token; tokens that come together have equal parts of one."""
    return [
        (before, now, (now - before) / (tokens - earlier))
        for (before, earlier), (now, tokens) in itertools.pairwise(events)
        for _ in range(tokens - earlier)
    ]


def spread(gaps: list[float], normal: float) -> dict[str, float]:
    """Returns shares of the sorted gaps, and the largest, as multiples of the normal one."""
    gaps = sorted(gaps)
    shares = {"median": 0.5, "p99": 0.99, "p99.9": 0.999, "largest": 1.0}
    return {name: gaps[min(len(gaps) - 1, int(share * len(gaps)))] / normal for name, share in shares.items()}


async def _gaps(clients: Clients, count: int, length: int) -> dict[str, Any]:
    """Returns the median gap without the prompt in seconds, and the gaps without and with it as multiples of that."""
    answers: list[list[list[tuple[float, int]]]] = [[] for _ in range(count)]
    prompts = clients.prompts(count)
    streams = [
        asyncio.create_task(_answers(clients, prompt, each)) for prompt, each in zip(prompts, answers, strict=True)
    ]

    async def wait(count: int) -> None:
        before = [sum(map(len, each)) for each in answers]
        while min(sum(map(len, each)) - n for each, n in zip(answers, before, strict=True)) < count:
            await asyncio.sleep(0.05)
            for stream in streams:
                if stream.done():
                    stream.result()  # raises what went wrong

    await wait(TOKENS_BEFORE)
    (prompt,) = clients.prompts(1, length)
    begin = time.perf_counter()
    await clients.stream(prompt, 1)
    end = time.perf_counter()
    await wait(TOKENS_AFTER)
    for stream in streams:
        stream.cancel()
    await asyncio.gather(*streams, return_exceptions=True)
    # The first tokens come while other prompts are computed.
    gaps = [gap for each in answers for answer in each for gap in gaps_between(answer[20:])]
    alone = [seconds for before, now, seconds in gaps if now < begin or before > end]
    beside = [seconds for before, now, seconds in gaps if now > begin and before < end]
    normal = statistics.median(alone)
    return {"normal": normal, "seconds": end - begin, "alone": spread(alone, normal), "beside": spread(beside, normal)}


def main() -> None:
    """Starts servers, compares and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, help=f"{STREAMS} by default, {LONG_STREAMS} with --long-prompt")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--against", metavar="PROGRAM", help="path of llama.cpp's llama-server; MODEL is a GGUF file")
    parser.add_argument("--bf16", action="store_true", help="serve a copy of the GGUF file in bfloat16")
    parser.add_argument("--dtype", default="auto", help="of `atb serve`, with --against")
    parser.add_argument("--long-prompt", type=int, metavar="TOKENS", help="measure gaps while such a prompt arrives")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    arguments = parser.parse_args()
    arguments.streams = arguments.streams or (LONG_STREAMS if arguments.long_prompt else STREAMS)
    about = machine(arguments.threads)
    print(f"{about['processor']}, {about['isa']}, {about['threads']} threads, load {about['load_average']}", flush=True)
    if arguments.long_prompt:
        found = beside_a_long_prompt(arguments)
    else:
        found = beside_llama_server(arguments) if arguments.against else beside_generate(arguments)
    if arguments.json:
        settings = {name: value for name, value in vars(arguments).items() if name != "json"}
        arguments.json.write_text(json.dumps({"machine": about, "arguments": settings, **found}, indent=1))


if __name__ == "__main__":
    main()
