# SPDX-License-Identifier: Apache-2.0
"""Measures loading in a process of its own: seconds to the first token, and memory beyond the bytes of the weights.

Imports nothing that the engine does not need: its imports are a part of what is measured.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

#: Tokens of the KV cache.
_CONTEXT = 2048
_MIB = 2**20


def _resident() -> tuple[int, int]:
    """Returns the bytes that are resident now, and the maximum so far."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    now, peak = (int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return now, peak


def load(directory: str, threads: int, started: float) -> dict[str, float]:
    """Loads the model in this process, with a cache for one context, and generates a token, also behind a full context.

    Returns:
        Measurements by name; `baseline` is the resident memory of the process with its libraries, before the model;
        seconds count from `started`, when the process was started.
    """
    from atb_core import ModelRunner, SamplingParams

    imported = time.time()
    baseline = _resident()[0]
    runner = ModelRunner(
        directory,
        dtype="bfloat16",
        num_threads=threads,
        load_tokenizer=False,
        max_model_len=_CONTEXT,
        num_blocks=_CONTEXT // 128,
        block_size=128,
    )
    ready = time.time()
    runner.generate([list(range(2, 34))], SamplingParams(max_tokens=1))
    first = time.time()
    # In tensors of torch, which `runner.kv_cache` gives, torch itself would be counted.
    runner.generate([[2] * (_CONTEXT - 1)], SamplingParams(max_tokens=1))
    resident, peak = _resident()
    seconds = {"imported": imported - started, "ready": ready - started, "first_token": first - started}
    return {**seconds, "baseline": baseline, "resident": resident, "peak": peak}


def measure_loading(directory: Path, threads: int) -> dict[str, Any]:
    """Loads a model in a new process, whose allocator holds nothing, with a warm page cache."""
    command = [sys.executable, __file__, str(directory), str(threads)]
    for _ in range(2):  # the first one fills the page cache
        done = subprocess.run([*command, str(time.time())], check=True, capture_output=True, text=True)
    measured = json.loads(done.stdout)
    weights = sum(path.stat().st_size for path in directory.glob("*.safetensors"))
    config = json.loads((directory / "config.json").read_text())
    head_dim = config["hidden_size"] // config["num_attention_heads"]
    kv = 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * head_dim * 2 * _CONTEXT
    return {
        "imports, s after the start": round(measured["imported"], 2),
        "ready, s": round(measured["ready"], 2),
        "first token of 32, s": round(measured["first_token"], 2),
        "weights, MiB": round(weights / _MIB),
        "KV cache, MiB": round(kv / _MIB),
        "process before the model, MiB": round(measured["baseline"] / _MIB),
        "resident, MiB": round(measured["resident"] / _MIB),
        "peak, MiB": round(measured["peak"] / _MIB),
        "resident / (weights + KV cache)": round(measured["resident"] / (weights + kv), 3),
    }


if __name__ == "__main__":
    print(json.dumps(load(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))))
