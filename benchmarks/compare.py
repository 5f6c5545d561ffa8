# SPDX-License-Identifier: Apache-2.0
"""Compares the speed with transformers in bfloat16: decode, prefill, and a batch of sixteen.

The speed of a machine drifts, so both engines run a task one right after the other in one process, and the result is
the ratio of each pair. Prompts are random and new for every pair, so that nothing can be reused.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from checkpoints import CACHE, QWEN2_05B, write_checkpoint

from atb_core import ModelRunner, SamplingParams
from atb_testing.conformance import cache_argument

Prompts = list[list[int]]


class Contestant(Protocol):
    """Interface of an engine under test: it generates greedily and ignores the end-of-sequence token."""

    def times(self, prompts: Prompts, max_tokens: int) -> tuple[float, float]:
        """Returns the seconds to the first token of the first prompt, and to the last token of all prompts."""
        ...


class Ours:
    """Engine under test: `ModelRunner.generate`, including scheduling, sampling and bookkeeping."""

    def __init__(self, directory: Path, threads: int) -> None:
        self.runner = ModelRunner(
            str(directory), dtype="bfloat16", num_threads=threads, load_tokenizer=False, max_model_len=2048
        )

    def times(self, prompts: Prompts, max_tokens: int) -> tuple[float, float]:
        """Returns the seconds to the first token of the first prompt, and to the last token of all prompts."""
        sampling = SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True)
        start, first = time.perf_counter(), 0.0
        for chunk in self.runner.generate(prompts, sampling, stream=True):
            if not first and chunk.prompt_index == 0:
                first = time.perf_counter() - start
        return first, time.perf_counter() - start


class Transformers:
    """Engine under test: transformers' `model(...)` with a dynamic cache, which has less overhead than `generate`."""

    def __init__(self, directory: Path, threads: int) -> None:
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(threads)
        self.model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16).eval()
        self.cache = cache_argument(self.model)

    @torch.inference_mode()
    def times(self, prompts: Prompts, max_tokens: int) -> tuple[float, float]:
        """Returns the seconds to the first token of the first prompt, and to the last token of all prompts."""
        start = time.perf_counter()
        out = self.model(torch.tensor(prompts), use_cache=True, logits_to_keep=1)
        token = out.logits[:, -1].argmax(-1, keepdim=True)
        first = time.perf_counter() - start
        for _ in range(max_tokens - 1):
            out = self.model(token, use_cache=True, **{self.cache: getattr(out, self.cache)})
            token = out.logits[:, -1].argmax(-1, keepdim=True)
        return first, time.perf_counter() - start


Task = Callable[[Contestant, torch.Generator], float]


def _prompts(count: int, length: int, generator: torch.Generator) -> Prompts:
    ids = torch.randint(2, QWEN2_05B.vocab_size, (count, length), generator=generator)
    return [list(map(int, row)) for row in ids]


def decode(contestant: Contestant, generator: torch.Generator, tokens: int = 33) -> float:
    """Measures tokens per second after the first one, for one sequence with a prompt of 32 tokens."""
    first, total = contestant.times(_prompts(1, 32, generator), tokens)
    return (tokens - 1) / (total - first)


def prefill(contestant: Contestant, generator: torch.Generator) -> float:
    """Measures prompt tokens per second up to the first token, for one prompt of 512 tokens."""
    return 512 / contestant.times(_prompts(1, 512, generator), 1)[1]


def batch(contestant: Contestant, generator: torch.Generator) -> float:
    """Measures generated tokens per second for 16 prompts of 64 tokens with 64 new tokens each."""
    return 16 * 64 / contestant.times(_prompts(16, 64, generator), 64)[1]


TASKS: dict[str, Task] = {"decode": decode, "prefill": prefill, "batch": batch}


def measure(contestants: dict[str, Contestant], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Returns tokens per second of each round, by task and engine; a warm-up round is dropped."""
    results: dict[str, dict[str, list[float]]] = {task: {name: [] for name in contestants} for task in TASKS}
    for round_ in range(rounds + 1):
        for task, run in TASKS.items():
            names = list(contestants)
            for name in names if round_ % 2 else reversed(names):
                speed = run(contestants[name], torch.Generator().manual_seed(round_))
                if round_:
                    results[task][name].append(speed)
    return results


def report(results: dict[str, dict[str, list[float]]]) -> str:
    """Formats a table with medians and the ratio ours / transformers of each pair, as median (minimum to maximum)."""
    lines = ["| task | ours tok/s | transformers tok/s | ratio |", "|---|---|---|---|"]
    for task, speeds in results.items():
        ours, theirs = speeds["ours"], speeds["transformers"]
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        lines.append(
            f"| {task} | {statistics.median(ours):.1f} | {statistics.median(theirs):.1f} "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
        )
    return "\n".join(lines)


def main() -> None:
    """Runs the comparison and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=CACHE / "qwen2-0.5b")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    args = parser.parse_args()
    write_checkpoint(args.checkpoint, QWEN2_05B)
    contestants: dict[str, Contestant] = {
        "ours": Ours(args.checkpoint, args.threads),
        "transformers": Transformers(args.checkpoint, args.threads),
    }
    results = measure(contestants, args.rounds)
    print(report(results))
    if args.json:
        args.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
