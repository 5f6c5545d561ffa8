# SPDX-License-Identifier: Apache-2.0
"""Scripts that interrupt themselves, as Ctrl-C would, in a process of their own."""

from __future__ import annotations

import subprocess
import sys

_PRELUDE = """
import os, signal, threading
# Whoever started the tests may have it ignored, which children inherit: shells do so for what runs in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)

def interrupt_soon():
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
"""


def interrupted(script: str) -> list[str]:
    """The lines that a script prints which calls `interrupt_soon()` and begins something long."""
    child = subprocess.run([sys.executable, "-c", _PRELUDE + script], capture_output=True, text=True, timeout=200)
    assert child.returncode == 0, child.stderr
    return child.stdout.splitlines()
