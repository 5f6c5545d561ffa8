# SPDX-License-Identifier: Apache-2.0
"""Checks that the imported core is that of a wheel: `python tools/assert_core.py dist/atb_core-*.whl`.

Tests of plugins against a different copy of the core are meaningless, so the imported files are compared with those of
the wheel.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import sys
import zipfile
from pathlib import Path


def main(argv: list[str]) -> int:
    """Prints the location of the core; returns 1, with the reason, if it differs from the wheel."""
    (wheel,) = argv
    spec = importlib.util.find_spec("atb_core")
    if spec is None or spec.origin is None:
        print("error: atb_core cannot be imported", file=sys.stderr)
        return 1
    package = Path(spec.origin).parent
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if not name.startswith("atb_core/") or name.endswith("/"):
                continue
            file = package.parent / name
            if not file.is_file() or _digest(file.read_bytes()) != _digest(archive.read(name)):
                print(f"error: {file} is not the file of {wheel}: another core is imported", file=sys.stderr)
                return 1
    print(f"testing atb-core {importlib.metadata.version('atb-core')} of {wheel}, imported from {package}")
    return 0


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
