# SPDX-License-Identifier: Apache-2.0
"""Counts the instructions of hot kernels with Valgrind, and compares them with the counts of an earlier revision.

Counts are the same under any load, so a slower kernel is seen on a machine that measures no times. They depend on the
compiler: counts of another one are not compared. Valgrind runs the levels up to AVX2.

    python tools/count_instructions.py build/count_kernels              # compare
    python tools/count_instructions.py build/count_kernels --update     # write the counts of this revision
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

COUNTS = Path(__file__).resolve().parents[1] / "benchmarks" / "instructions.json"
LEVELS = ("portable", "avx2")
#: Part of a count that may change without being named: other addresses change a branch here and there.
TOLERANCE = 0.02
#: Runs of the shorter and of the longer measurement.
_FEW, _MANY = 1, 2


def cases(program: Path) -> list[str]:
    """Returns the names of the cases."""
    return subprocess.run([program], check=True, capture_output=True, text=True).stdout.splitlines()


def collected(program: Path, level: str, case: str, runs: int) -> int:
    """Returns the instructions of a whole run of the program.

    Raises:
        SystemExit: Valgrind is missing or fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", str(program), level, case]
        try:
            done = subprocess.run([*command, str(runs)], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise SystemExit("valgrind is not installed (apt-get install valgrind)") from None
    found = re.search(r"Collected\s*:\s*(\d+)", done.stderr)
    if done.returncode or found is None:
        raise SystemExit(f"valgrind failed for {case}, {level}:\n{done.stderr[-2000:]}")
    return int(found[1])


def count(program: Path, level: str, case: str) -> int:
    """Returns the instructions of one run of a kernel."""
    few, many = (collected(program, level, case, runs) for runs in (_FEW, _MANY))
    return (many - few) // (_MANY - _FEW)


def compiler(program: Path) -> str:
    """Returns the compiler that built a program, from its section `.comment`."""
    section = subprocess.run(["readelf", "-p", ".comment", program], check=True, capture_output=True, text=True).stdout
    names = re.findall(r"\]\s+(.*\S)", section)
    return names[-1] if names else "unknown"


def changes(before: dict[str, int], now: dict[str, int]) -> list[str]:
    """Returns a line for each count that is new, gone, or has changed by more than `TOLERANCE`."""
    lines = [f"{name}: {now[name]:,} instructions, not counted before" for name in now if name not in before]
    lines += [f"{name}: no longer there" for name in before if name not in now]
    for name in now:
        old = before.get(name)
        if old and abs(now[name] - old) > TOLERANCE * old:
            lines.append(f"{name}: {now[name]:,} instructions, {now[name] / old - 1:+.1%} against {old:,}")
    return lines


def main() -> int:
    """Counts; returns 1 if counts have changed, and 2 if there is nothing to compare with."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path)
    parser.add_argument("--update", action="store_true")
    args = parser.parse_args()
    now = {}
    for level in LEVELS:
        for case in cases(args.program):
            now[f"{case}, {level}"] = found = count(args.program, level, case)
            print(f"{found:>15,}  {case}, {level}", flush=True)
    record = json.loads(COUNTS.read_text()) if COUNTS.exists() else {}
    name = compiler(args.program)
    if args.update:
        COUNTS.write_text(json.dumps({**record, name: now}, indent=1, sort_keys=True) + "\n")
        return 0
    if name not in record:
        print(f"no counts of {name}; --update writes them", file=sys.stderr)
        return 2
    changed = changes(record[name], now)
    print("\n".join(changed) or "as before", file=sys.stderr)
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
