# SPDX-License-Identifier: Apache-2.0
"""Measures the cost of many installed plugins: `atb list` and similar commands, compared with `import click`.

The plugins are those of the tests, including broken ones. Commands run in turn, and the result is the median.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "plugins"))
import synthetic

ATB = "import sys; from atb_cli import main; sys.exit(main(sys.argv[1:]))"
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "python -c 'import click'": ["-c", "import click"],
    "atb list": ["-c", ATB, "list"],
    "atb plugins list": ["-c", ATB, "plugins", "list"],
    "atb --help": ["-c", ATB, "--help"],
}


def seconds(command: list[str], environment: dict[str, str]) -> float:
    """Measures the wall time of a Python process from start to end."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], env=environment, check=True, capture_output=True)
    return time.perf_counter() - start


def measure(environment: dict[str, str], rounds: int) -> dict[str, float]:
    """Returns the median seconds of each command; the first round fills the disk cache and is dropped."""
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds + 1):
        for name, command in COMMANDS.items():
            taken[name].append(seconds(command, environment))
    return {name: statistics.median(values[1:]) for name, values in taken.items()}


def main() -> None:
    """Prints the times of the commands with and without additional plugins."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plugins", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        _, path = synthetic.install(Path(scratch, "site"), args.plugins)
        full = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
        for count, environment in ((0, dict(os.environ)), (args.plugins, full)):
            medians = measure(environment, args.rounds)
            print(f"with {count} more plugins installed:")
            for name, value in medians.items():
                ratio = value / medians["python -c 'import click'"]
                print(f"  {name:<26} {value:.3f} s, {ratio:.2f} times `import click`")


if __name__ == "__main__":
    main()
