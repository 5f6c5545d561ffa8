# SPDX-License-Identifier: Apache-2.0
"""Measures the time from the start of a process to its first token, and what the process used until then.

Environments are compared in turns, because the machine's speed drifts: give `--python` once for each, such as those of
two commits. Each turn starts every environment's interpreter once, in alternating order.

    python benchmarks/first_token.py MODEL --python A/bin/python --python B/bin/python --turns 7
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

# The child says what each part took: imports, opening (files, tokenizer, weights), and the first token.
_CHILD = """
import json, resource, sys, time

began = float(sys.argv[1])
times = {"interpreter": time.time() - began}

def lap(name):
    times[name] = time.time() - began - sum(times.values())

import atb_core
from atb_core import ModelRunner, SamplingParams
lap("imports")
runner = ModelRunner(sys.argv[2], max_num_seqs=1, load_tokenizer=sys.argv[3] == "True")
lap("opening")
runner.generate([[1, 2, 3, 4, 5]], SamplingParams(max_tokens=1))
lap("first step")
used = resource.getrusage(resource.RUSAGE_SELF)
resident = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
print(json.dumps({
    "seconds": time.time() - began, "parts": times, "processor": used.ru_utime + used.ru_stime,
    "system": used.ru_stime, "peak_mb": used.ru_maxrss / 1024, "resident_mb": resident / 1e6,
    "torch": "torch" in sys.modules,
}))
"""


def main() -> None:
    """Runs the turns and prints JSON: medians for each environment, and ratios of the pairs to the first one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--python", action="append", help="interpreter of an environment; by default this one")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--no-tokenizer", action="store_true", help="for a checkpoint without one")
    options = parser.parse_args()
    pythons = options.python or [sys.executable]
    for python in pythons:
        _run(python, options.model, not options.no_tokenizer)  # files get into the page cache, and modules are compiled
    runs: dict[str, list[dict[str, Any]]] = {python: [] for python in pythons}
    for turn in range(options.turns):
        for python in pythons if turn % 2 == 0 else pythons[::-1]:
            runs[python].append(_run(python, options.model, not options.no_tokenizer))
    print(json.dumps({python: _summary(runs[python], runs[pythons[0]]) for python in pythons}, indent=2))


def _run(python: str, model: str, tokenizer: bool) -> dict[str, Any]:
    command = [python, "-c", _CHILD, repr(time.time()), model, str(tokenizer)]
    # In the folder of a clone, Python would import the clone.
    child = subprocess.run(command, capture_output=True, text=True, cwd=os.path.expanduser("~"), check=False)
    if child.returncode:
        raise SystemExit(f"{python} failed:\n{child.stderr}")
    result: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return result


def _summary(own: list[dict[str, Any]], first: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("seconds", "processor", "system", "peak_mb", "resident_mb")
    return {
        **{name: round(statistics.median(run[name] for run in own), 3) for name in names},
        "parts": {part: round(statistics.median(run["parts"][part] for run in own), 3) for part in own[0]["parts"]},
        "imports_torch": own[0]["torch"],
        **{
            f"{name}_ratio": round(statistics.median(a[name] / b[name] for a, b in zip(own, first, strict=True)), 3)
            for name in ("seconds", "processor")
        },
    }


if __name__ == "__main__":
    main()
