# SPDX-License-Identifier: Apache-2.0
"""Compares `atb estimate --soc cpu` with measured steps: decode of 1 and 16 sequences, prefill of two lengths.

In each round the limits are measured first, then every step; the ratio of measured by estimated time is that within a
round. On a machine that others use, `--processor-time` compares the processor time of one thread.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

from checkpoints import CACHE, QWEN2_05B, write_checkpoint

from atb_core import ModelRunner
from atb_profile.bench.machine import load, machine
from atb_profile.estimate.estimate import Assumptions, bound
from atb_profile.estimate.measured import Step, compare, table
from atb_profile.estimate.workload import Workload

#: A ratio further from 1 than this fails with `--guard`.
MOST = 1.3


def user_seconds() -> float:
    """Returns the processor time of this process, without that of the system: memory that is used the first time."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=CACHE / "qwen2-0.5b")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 16], help="sequences that decode together")
    parser.add_argument("--context", type=int, default=64, help="tokens before decoding begins")
    parser.add_argument("--prompts", type=int, nargs="*", default=[512, 2048], help="tokens of a prefill")
    parser.add_argument("--processor-time", action="store_true", help="of one thread, instead of the time that passes")
    parser.add_argument("--shares", action="store_true", help="also print what the estimates consist of")
    parser.add_argument("--guard", action="store_true", help=f"fail if an estimate is off by more than {MOST} times")
    args = parser.parse_args()
    threads = 1 if args.processor_time else args.threads
    write_checkpoint(args.checkpoint, QWEN2_05B)
    about = machine(threads)
    runner = ModelRunner(
        str(args.checkpoint), dtype="bfloat16", num_threads=threads, load_tokenizer=False, enable_prefix_caching=False,
        max_model_len=max([args.context, *args.prompts]) + 32,
    )  # fmt: skip
    workload = Workload(runner.model, backend="cpu")
    steps = [Step("decode", batch, args.context) for batch in args.batches]
    steps += [Step("prefill", 1, prompt) for prompt in args.prompts]
    clock = user_seconds if args.processor_time else time.perf_counter
    device, found = compare(runner, workload, steps, args.rounds, clock)
    kind = "processor time" if args.processor_time else "time"
    print(f"{about['processor']}, {about['isa']}, {about['date']}, load {about['load_average']} to {load()}, {kind}")
    print(*(f"{name} {value:.4g}: {source}" for name, (value, source) in device.figures().items()), sep="\n")
    print(table(found))
    if args.shares:
        for phase in (workload.decode(1, args.context), workload.prefill(max(args.prompts))):
            estimate = bound(phase, device, Assumptions(launch=device.launch.value if device.launch else 0))
            shares = {op: f"{seconds * 1e3:.2f} ms" for op, seconds in estimate.by_op.items()}
            print(phase.name, dict(estimate.seconds), shares)
    if args.guard and (off := [str(each.step) for each in found if not 1 / MOST <= each.ratio <= MOST]):
        raise SystemExit(f"off by more than {MOST} times: {', '.join(off)}")


if __name__ == "__main__":
    main()
