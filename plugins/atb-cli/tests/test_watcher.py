# SPDX-License-Identifier: Apache-2.0
"""A command tells of code of a plugin that takes long, also of code that no thread of the process can tell of."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from site_directory import Site

_HOOK = "from atb_core.plugins import hookimpl\n@hookimpl\ndef atb_cli_commands():\n    {}\n"


def told_of(what: str, site: Site, command: str) -> str:
    """Runs a command with atb-slow of `site` and no other plugin until it tells of `what`, and returns that line.

    On a busy machine it may tell of the import before the hook.
    """
    chosen = {"PYTHONPATH": str(site.path), "ATB_PLUGINS": "atb-slow", "ATB_PLUGIN_TIMEOUT": "0.5"}
    environment = {**os.environ, **chosen}
    arguments = [sys.executable, "-m", "atb_cli", command]
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        line = next((line for line in process.stderr if line.startswith(what.encode())), b"").decode()
        process.kill()
        # The process that watches has ended too: nobody else has the other ends of the pipes.
        assert (process.stdout.read(), process.stderr.read()) == (b"", b"")
    return line


@pytest.mark.parametrize(
    ("source", "what"),
    [
        pytest.param("sum(range(10**12))", "importing 'atb_slow'", id="import-in-c"),
        pytest.param("while True: pass", "importing 'atb_slow'", id="import-in-python"),
        pytest.param(_HOOK.format("sum(range(10**12))"), "the hook atb_cli_commands", id="hook-in-c"),
        pytest.param(_HOOK.format("import time; time.sleep(1000)"), "the hook atb_cli_commands", id="hook-that-sleeps"),
    ],
)
def test_a_command_tells_of_a_plugin_that_never_ends(tmp_path: Path, source: str, what: str) -> None:
    site = Site(tmp_path)
    site.metadata("atb-slow", "1.2", "[atb_core.plugins]\nslow = atb_slow\n[atb_core.api]\n1 = atb_slow\n")
    (tmp_path / "atb_slow.py").write_text(source)
    assert told_of(what, site, "no-command-of-core") == (
        f"{what} of the plugin atb-slow 1.2 takes more than 0.5 s. Ctrl-C interrupts it, or else Ctrl-\\;"
        " ATB_NO_PLUGINS=atb-slow leaves the plugin out.\n"
    )


@pytest.mark.parametrize("call", ["fork", "pipe"])
def test_where_no_process_can_be_started_commands_go_on_without(call: str) -> None:
    code = (
        f"import os, sys\ndef refused(*args): raise BlockingIOError\nos.{call} = refused\n"
        "from atb_cli.app import main\nsys.argv = ['atb', 'list']\nsys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
