# SPDX-License-Identifier: Apache-2.0
"""Measures a GGUF file in our engine and in llama.cpp's `llama-bench`, in turns: a prompt, and tokens behind one."""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import time

from atb_core import ModelRunner, SamplingParams
from atb_profile.bench.machine import machine


def ours(runner: ModelRunner, prompt: int, new: int) -> float:
    """Returns the tokens a second of a prompt, or of what follows one token."""
    tokens = random.choices(range(100, 20000), k=prompt or 1)
    params = SamplingParams(temperature=0, max_tokens=1 if prompt else new + 1, ignore_eos=True)
    begin, first = time.perf_counter(), 0.0
    for _ in runner.generate([tokens], params, stream=True):
        first = first or time.perf_counter()
    return prompt / (first - begin) if prompt else new / (time.perf_counter() - first)


def theirs(command: list[str], prompt: int, new: int) -> float | None:
    """Returns the tokens a second of `llama-bench`; `None`, and says how it ended, if it failed."""
    sizes = ["-p", str(prompt), "-n", str(new), "-r", "1", "-o", "json"]
    done = subprocess.run([*command, *sizes], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{command[0]} {' '.join(sizes)} ended with {done.returncode}: {done.stderr[-300:].strip()}", flush=True)
        return None
    return float(json.loads(done.stdout)[0]["avg_ts"])


def main() -> None:
    """Runs both in alternating order and prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", help="a GGUF file")
    parser.add_argument("--bench", required=True, help="path of llama-bench")
    parser.add_argument("--bench-option", action="append", default=[], help="passed on to it, such as --no-repack")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    about = machine(args.threads)
    print(f"{about['processor']}, {about['isa']}, {about['threads']} threads, load {about['load_average']}", flush=True)
    runner = ModelRunner(args.file, num_threads=args.threads, max_model_len=4096, enable_prefix_caching=False)
    command = [args.bench, "-m", args.file, "-t", str(args.threads), *args.bench_option]
    for what, sizes in {"prompt": (args.prompt, 0), "decode": (0, args.new)}.items():
        ours(runner, *sizes)  # builds graphs
        pairs = []
        for number in range(args.rounds):
            if number % 2:
                mine, other = ours(runner, *sizes), theirs(command, *sizes)
            else:
                other, mine = theirs(command, *sizes), ours(runner, *sizes)
            if other is None:
                break
            pairs.append((mine, other))
        if pairs:
            ratios = [mine / other for mine, other in pairs]
            speeds = ", ".join(f"{statistics.median(each):.1f}" for each in zip(*pairs, strict=True))
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            print(f"{what}: {speeds} tokens/s, {statistics.median(ratios):.2f} times as fast ({spread})", flush=True)


if __name__ == "__main__":
    main()
