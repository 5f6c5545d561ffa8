# SPDX-License-Identifier: Apache-2.0
"""Checks that the folders of csrc include only lower ones: `python tools/check_csrc_layers.py`.

Prints a line `file:line: folder -> folder` for each include that the table does not allow; then the exit status is 1.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

CSRC = Path(__file__).resolve().parent.parent / "csrc"

#: The folders from the bottom up, and those whose files they may include besides their own. "vendor" is a header of
#: ATB, ACL or HCCL, which the simulator declares too; only the Ascend backend and code above it may include one.
ALLOWED: dict[str, set[str]] = {
    "include": set(),
    "graph": {"include"},
    "models": {"include", "graph"},
    "cpu": {"include"},
    "cpu/kernels": {"include", "cpu"},
    "cpu/engine": {"include", "graph", "models", "cpu", "cpu/kernels"},
    "sim": {"vendor"},
    "atb": {"include", "graph", "models", "vendor"},
    "bindings": {"include", "graph", "models", "cpu", "cpu/engine", "atb", "sim", "vendor"},
    "tests": {"include", "graph", "models", "cpu", "cpu/kernels", "cpu/engine", "atb", "sim", "vendor"},
}
VENDOR = ("acl/", "atb/", "hccl/")
_INCLUDE = re.compile(r'\s*#\s*include\s*(["<])([^">]+)[">]')


def layer_of(path: Path, csrc: Path) -> str | None:
    """Returns the longest folder of the table that holds `path`, None if there is none."""
    folders = [parent.relative_to(csrc).as_posix() for parent in path.parents if parent.is_relative_to(csrc)]
    return next((folder for folder in folders if folder in ALLOWED), None)


def target_of(source: Path, quote: str, name: str, csrc: Path) -> str | None:
    """Returns the layer of an included header, None for one that is not in csrc."""
    if quote == "<" and name.startswith(VENDOR):
        return "vendor"
    roots = [source.parent, csrc / "include", csrc, csrc / "sim" / "include", csrc / "sim" / "src"]
    header = next((root / name for root in roots if (root / name).is_file()), None)
    return None if header is None else layer_of(header, csrc)


def violations(csrc: Path = CSRC) -> Iterator[str]:
    """Yields a line for each include that is not allowed, and for each file in no folder of the table."""
    for source in sorted(path for path in csrc.rglob("*") if path.suffix in (".h", ".cpp")):
        place, layer = source.relative_to(csrc.parent), layer_of(source, csrc)
        if layer is None:
            yield f"{place}:1: the folder is not in the table of layers"
            continue
        for number, line in enumerate(source.read_text(encoding="utf-8").splitlines(), 1):
            match = _INCLUDE.match(line)
            target = target_of(source, match[1], match[2], csrc) if match else None
            if match and target not in (None, layer) and target not in ALLOWED[layer]:
                yield f"{place}:{number}: {layer} -> {target} ({match[2]})"


def main(argv: list[str] | None = None) -> int:
    """Prints the violations; returns 1 if there are any."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(argv)
    lines = list(violations())
    print("\n".join(lines) if lines else f"{len(ALLOWED)} folders of csrc include only lower ones")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
