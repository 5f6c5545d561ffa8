# SPDX-License-Identifier: Apache-2.0
"""Measures memory and time of loading in a separate process: the resident memory beyond the bytes of the weights."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from checkpoints import CACHE, QWEN2_05B, write_checkpoint

BLOCK = 128


def _resident() -> tuple[int, int]:
    """Returns the bytes that are resident now, and the maximum so far."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    now, peak = (int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return now, peak


def load(directory: Path, max_model_len: int) -> dict[str, float]:
    """Loads the model in this process, with a cache for one context, and touches all of its memory.

    Returns:
        Measurements by name; `baseline` is the resident memory of the process with its libraries, before the model.
    """
    import torch

    from atb_core import ModelRunner

    torch.zeros(1).add_(1)
    baseline = _resident()[0]
    start = time.perf_counter()
    runner = ModelRunner(
        str(directory),
        dtype="bfloat16",
        num_threads=2,
        load_tokenizer=False,
        max_model_len=max_model_len,
        num_blocks=-(-max_model_len // BLOCK),
        block_size=BLOCK,
    )
    seconds = time.perf_counter() - start
    for keys, values in runner.kv_cache:
        keys.zero_()
        values.zero_()
    resident, peak = _resident()
    del runner
    return {"baseline": baseline, "resident": resident, "peak": peak, "seconds": seconds}


def main() -> None:
    """Loads the model in a child process and prints its memory and time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=CACHE / "qwen2-0.5b")
    parser.add_argument("--max-model-len", type=int, default=2048)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(load(args.checkpoint, args.max_model_len)))
        return
    weights = write_checkpoint(args.checkpoint, QWEN2_05B)
    kv = 2 * QWEN2_05B.num_hidden_layers * QWEN2_05B.num_key_value_heads * QWEN2_05B.head_dim * 2
    kv *= args.max_model_len
    # A fresh process, because the allocator may keep memory that was used to write the checkpoint.
    command = [sys.executable, __file__, "--child", "--checkpoint", str(args.checkpoint)]
    command += ["--max-model-len", str(args.max_model_len)]
    measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    mib = 2**20
    print(f"weights {weights / mib:.0f} MiB, KV cache of one full context {kv / mib:.0f} MiB")
    print(f"process before the model {measured['baseline'] / mib:.0f} MiB")
    print(f"resident after load {measured['resident'] / mib:.0f} MiB, peak {measured['peak'] / mib:.0f} MiB")
    print(f"resident / (weights + KV cache): {measured['resident'] / (weights + kv):.3f}")
    print(f"the same without the memory of the process before loading: "
          f"{(measured['resident'] - measured['baseline']) / (weights + kv):.3f}")  # fmt: skip
    print(f"load {measured['seconds']:.2f} s")


if __name__ == "__main__":
    main()
