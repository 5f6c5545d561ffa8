# SPDX-License-Identifier: Apache-2.0
"""Measures decode with one and with all threads while 0, 1 and more other processes keep processors busy.

The model has the sizes of Qwen2-0.5B and random weights. More threads should never be slower than one: where they are,
the engine takes fewer after some steps, which are left out unless `--first 0` is given.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from checkpoints import CACHE, QWEN2_05B, write_checkpoint

from atb_core import ModelRunner, SamplingParams
from atb_profile.bench.machine import machine


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Keeps `count` processes busy."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(0.3)
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def tokens_per_second(runner: ModelRunner, tokens: int, first: int) -> float:
    """Measures decode of one sequence, without the prompt and the `first` tokens after it."""
    params, times = SamplingParams(max_tokens=1 + first + tokens, ignore_eos=True), []
    for _ in runner.generate([[1, 2, 3]], params, stream=True):
        times.append(time.perf_counter())
    return tokens / (times[-1] - times[-1 - tokens])


def main() -> None:
    """Measures all numbers of neighbours in each round, and prints medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--neighbours", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--first", type=int, default=16)
    args = parser.parse_args()
    about = machine(args.threads)
    print(f"{about['processor']}, {about['isa']}, load {about['load_average']}", flush=True)
    base = CACHE / "qwen2-0.5b"
    write_checkpoint(base, QWEN2_05B)
    runners = {
        threads: ModelRunner(
            base, load_tokenizer=False, num_threads=threads, max_model_len=args.first + args.tokens + 8
        )
        for threads in (1, args.threads)
    }
    speeds: dict[tuple[int, int], list[float]] = {}
    for number in range(args.rounds):
        for count in args.neighbours:
            with neighbours(count):
                for threads in sorted(runners, reverse=bool(number % 2)):
                    speeds.setdefault((count, threads), []).append(
                        tokens_per_second(runners[threads], args.tokens, args.first)
                    )
    for count in args.neighbours:
        one, all_ = speeds[count, 1], speeds[count, args.threads]
        ratios = [many / single for many, single in zip(all_, one, strict=True)]
        print(
            f"beside {count}: {statistics.median(one):.1f} tokens/s with 1 thread, {statistics.median(all_):.1f} with "
            f"{args.threads}; ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
