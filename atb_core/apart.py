# SPDX-License-Identifier: Apache-2.0
"""Code that may crash or hang this process, such as loading somebody's library: tried in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

_SECONDS = 60.0
# The current folder comes first otherwise, and may hold other modules of the same names: a clone of this repository.
_SAME_PATH = "import sys\nif sys.path[0] == '': del sys.path[0]\n"


def problem_apart(code: str, argument: str) -> str | None:
    """Runs Python `code` with one argument; None, or why it fails: what it says last, its signal, that it hangs."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    command = [sys.executable, "-c", _SAME_PATH + code, argument]
    try:
        done = subprocess.run(command, capture_output=True, env=environ, timeout=_SECONDS, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return f"loading it takes more than {_SECONDS:.0f} seconds"
    except OSError as error:
        return f"no process could be started to load it: {error}"
    if done.returncode == 0:
        return None
    lines = done.stderr.decode("utf-8", errors="replace").strip().splitlines()
    last = lines[-1].strip() if lines else None
    if done.returncode < 0:
        return f"loading it ends the process with signal {-done.returncode}" + (f" ({last})" if last else "")
    return last or f"loading it ends the process with status {done.returncode}"
