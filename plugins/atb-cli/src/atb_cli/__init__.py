# SPDX-License-Identifier: Apache-2.0
"""The command line `atb`: a module for each command, none of which imports torch before a model is used."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command, see `atb_cli.app.main`; an interruption while modules are imported is told as a later one."""
    try:
        from atb_cli.app import main as run
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return run(argv)
