# SPDX-License-Identifier: Apache-2.0
"""Measures the time from the start of a process to its first token, and what the process used until then.

Environments are compared in turns, because the machine's speed drifts: give `--python` once for each, such as those of
two commits. Each turn starts every environment's interpreter once, in alternating order.

    python benchmarks/first_token.py MODEL --python A/bin/python --python B/bin/python --turns 7

With `--cache-packed` the environments map packed weights, and the first one is measured without, too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
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
packed = {} if sys.argv[4] == "" else {"cache_packed": sys.argv[4]}
runner = ModelRunner(sys.argv[2], max_num_seqs=1, load_tokenizer=sys.argv[3] == "True", **packed)
lap("opening")
runner.generate([[1, 2, 3, 4, 5]], SamplingParams(max_tokens=1))
lap("first step")
used = resource.getrusage(resource.RUSAGE_SELF)
resident = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
print(json.dumps({
    "seconds": time.time() - began, "parts": times, "processor": used.ru_utime + used.ru_stime,
    "system": used.ru_stime, "page_faults": used.ru_minflt,
    "peak_mb": used.ru_maxrss / 1024, "resident_mb": resident / 1e6, "torch": "torch" in sys.modules,
}))
"""


def main() -> None:
    """Runs the turns and prints JSON: medians for each environment, and ratios of the pairs to the first one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--python", action="append", help="interpreter of an environment; by default this one")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--no-tokenizer", action="store_true", help="for a checkpoint without one")
    parser.add_argument("--cache-packed", action="store_true", help="map packed weights, from a folder of their own")
    options = parser.parse_args()
    pythons = options.python or [sys.executable]
    with tempfile.TemporaryDirectory(dir=os.path.expanduser("~")) as folder:
        cases = [(python, "") for python in pythons]
        if options.cache_packed:
            cases = [cases[0], *((python, folder) for python in pythons)]
        for python, packed in cases:  # files get into the page cache, and modules are compiled
            _run(python, options.model, not options.no_tokenizer, packed)
        runs: dict[tuple[str, str], list[dict[str, Any]]] = {case: [] for case in cases}
        for turn in range(options.turns):
            for python, packed in cases if turn % 2 == 0 else cases[::-1]:
                runs[python, packed].append(_run(python, options.model, not options.no_tokenizer, packed))
    names = {case: f"{case[0]}, packed weights mapped" if case[1] else case[0] for case in cases}
    print(json.dumps({names[case]: _summary(runs[case], runs[cases[0]]) for case in cases}, indent=2))


def _run(python: str, model: str, tokenizer: bool, packed: str) -> dict[str, Any]:
    command = [python, "-c", _CHILD, repr(time.time()), model, str(tokenizer), packed]
    # In the folder of a clone, Python would import the clone. Without bytecode, compiling modules is most of the time.
    environment, folder = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}, os.path.expanduser("~")
    child = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)
    if child.returncode:
        raise SystemExit(f"{python} failed:\n{child.stderr}")
    result: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return result


def _summary(own: list[dict[str, Any]], first: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("seconds", "processor", "system", "page_faults", "peak_mb", "resident_mb")
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
