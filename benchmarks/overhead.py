# SPDX-License-Identifier: Apache-2.0
"""Measures everything except kernels: the cost of a step, and of recording and building both variants of a deep model.

A step of a model with 24 layers and almost nothing to compute is an upper bound of the cost besides kernels: Python,
bindings, plan lookup and barriers, plus kernels of a microsecond. What remains of a token without the times of all
nodes, on one thread, is that cost: scheduler, step, sampler and stream included.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from checkpoints import DEEP_80, NARROW_24, write_checkpoint

from atb_core import ModelRunner, SamplingParams

BLOCK = 128


def _runner(directory: Path, threads: int) -> ModelRunner:
    return ModelRunner(
        str(directory), dtype="bfloat16", num_threads=threads, load_tokenizer=False, max_model_len=512,
        block_size=BLOCK,
    )  # fmt: skip


def _step(runner: ModelRunner, caches: list[tuple[torch.Tensor, torch.Tensor]], position: int) -> None:
    """Runs one decode step of one sequence, whose blocks are numbered from 0."""
    runner.forward(
        input_ids=torch.tensor([3]),
        position_ids=torch.tensor([position]),
        is_prefill=False,
        kv_cache=caches,
        block_tables=torch.arange(4, dtype=torch.int32)[None],
        slots=torch.tensor([position], dtype=torch.int32),
        input_lengths=torch.tensor([position + 1], dtype=torch.int32),
        max_seq_len=position + 1,
        lm_head_indices=None,
    )


def _caches(layers: int, heads: int, head_dim: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    shape = (4, BLOCK, heads, head_dim)
    both = torch.zeros(layers, 2, *shape, dtype=torch.bfloat16)
    return [(pair[0], pair[1]) for pair in both]


def step_seconds(directory: Path, threads: int, steps: int) -> list[float]:
    """Measures the seconds of each decode step of the narrow model."""
    write_checkpoint(directory, NARROW_24)
    runner = _runner(directory, threads)
    caches = _caches(NARROW_24.num_hidden_layers, NARROW_24.num_key_value_heads, NARROW_24.head_dim)
    seconds = []
    for index in range(steps + 20):
        start = time.perf_counter()
        _step(runner, caches, index % 256)
        seconds.append(time.perf_counter() - start)
    return seconds[20:]


def host_seconds(directory: Path, tokens: int) -> list[float]:
    """Measures the seconds of each token of the narrow model in which no node ran; its weights must have been written.

    Noting when nodes begin and end is part of them.
    """
    runner = _runner(directory, 1)
    engine = runner.model.variants.get("decode").engine
    engine.set_recording(True)
    seconds: list[float] = []
    for _ in range(-(-tokens // 255)):
        before = 0.0
        for _ in runner.generate([[1, 2, 3]], SamplingParams(max_tokens=256, ignore_eos=True), stream=True):
            now, runs = time.perf_counter(), engine.take_runs()
            if runs:
                times = runs[-1].threads[0]
                nodes = sum(times[i + 1] - times[i] for i in range(0, len(times), 2)) * 1e-9
                seconds.append(now - before - nodes)
            before = time.perf_counter()
    return seconds


def build_seconds(directory: Path, threads: int) -> float:
    """Measures the seconds to record and build both variants of the deep model: first calls minus later ones."""
    write_checkpoint(directory, DEEP_80)
    runner = _runner(directory, threads)
    caches = _caches(DEEP_80.num_hidden_layers, DEEP_80.num_key_value_heads, DEEP_80.head_dim)

    def both() -> float:
        start = time.perf_counter()
        runner.forward(
            input_ids=torch.tensor([3, 4]),
            position_ids=torch.tensor([0, 1]),
            is_prefill=True,
            kv_cache=caches,
            block_tables=torch.zeros(1, 4, dtype=torch.int32),
            slots=torch.tensor([0, 1], dtype=torch.int32),
            input_lengths=torch.tensor([2], dtype=torch.int32),
            max_seq_len=2,
            lm_head_indices=torch.tensor([1]),
        )
        _step(runner, caches, 2)
        return time.perf_counter() - start

    return both() - both()


def main() -> None:
    """Prints both measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=500)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        seconds = step_seconds(Path(scratch, "narrow"), args.threads, args.steps)
        milliseconds = [1000 * value for value in seconds]
        print(f"a decode step of 24 narrow layers: median {statistics.median(milliseconds):.3f} ms, "
              f"minimum {min(milliseconds):.3f} ms")  # fmt: skip
        host = [1e6 * value for value in host_seconds(Path(scratch, "narrow"), args.steps)]
        print(f"outside of nodes, for each token, on one thread: median {statistics.median(host):.0f} us, "
              f"minimum {min(host):.0f} us")  # fmt: skip
        built = build_seconds(Path(scratch, "deep"), args.threads)
        print(f"recording and building both variants of 80 layers: {built:.2f} s")


if __name__ == "__main__":
    main()
