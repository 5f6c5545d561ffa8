# SPDX-License-Identifier: Apache-2.0
"""The core is a library: without the package of commands, and without click, all else works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from site_directory import Site

from atb_core import names
from atb_core.names import command

_ALONE = "import sys; sys.modules['atb_cli'] = sys.modules['click'] = None\n"
_HOOKS = """
from atb_core.plugins import hookimpl
@hookimpl
def atb_cli_commands():
    import click
    return [click.Command("hello")]
@hookimpl
def atb_features():
    return []
"""


def test_no_module_of_the_core_imports_commands() -> None:
    code = _ALONE + (
        "import importlib, pkgutil, atb_core\n"
        "for one in pkgutil.walk_packages(atb_core.__path__, 'atb_core.'):\n"
        "    if one.name not in ('atb_core._atb', 'atb_core._cpu'): importlib.import_module(one.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_plugin_with_commands_is_used_for_what_else_it_brings_and_not_asked_for_them(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.metadata("atb-hello", "1.0", "[atb_core.plugins]\nhello = atb_hello\n[atb_core.api]\n1 = atb_hello\n")
    (tmp_path / "atb_hello.py").write_text(_HOOKS)
    code = _ALONE + (
        "from atb_core.features import FEATURES\nassert FEATURES.all() == [] and 'atb_hello' in sys.modules\n"
        "from atb_core.plugins.hooks import failures\nassert failures() == ''\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(site.path), "ATB_PLUGINS": "atb-hello", "ATB_STRICT": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_message_that_names_a_command_names_the_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert command("doctor") == "`atb doctor`"
    monkeypatch.setattr(names, "find_spec", lambda name: None)
    assert command("doctor") == "`atb doctor` (of the package atb-cli)"
