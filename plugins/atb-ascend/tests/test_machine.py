# SPDX-License-Identifier: Apache-2.0
"""The real machine is examined in child processes, without importing what is examined."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ascend_machines import write

from atb_ascend.machine import Machine, import_module, load_library, module_file
from atb_ascend.modules import torch_abi
from atb_core.distributions import version_of


def test_a_file_that_is_no_library_is_reported_and_does_not_end_this_process(tmp_path: Path) -> None:
    problem = load_library(write(tmp_path / "libatb.so", "no library"))
    assert problem is not None
    assert "file too short" in problem or "invalid ELF header" in problem


def test_a_module_that_crashes_or_exits_or_fails_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    write(tmp_path / "crashes_now.py", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    write(tmp_path / "aborts_now.py", "import os, sys\nsys.stderr.write('  what():  no card\\n')\nos.abort()\n")
    write(tmp_path / "exits_now.py", "raise SystemExit(3)\n")
    write(tmp_path / "fails_now.py", "raise ImportError('no good')\n")
    write(tmp_path / "works_now.py")
    assert import_module("crashes_now") == "loading it ends the process with signal 11"
    assert import_module("aborts_now") == "loading it ends the process with signal 6 (what():  no card)"
    assert import_module("exits_now") == "loading it ends the process with status 3"
    assert import_module("fails_now") == "ImportError: no good"
    assert import_module("works_now") is None


def test_a_library_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atb_core.child._TRY_SECONDS", 0.2)
    monkeypatch.syspath_prepend(str(tmp_path))
    write(tmp_path / "hangs_now.py", "import time\ntime.sleep(60)\n")
    assert "takes more than" in (import_module("hangs_now") or "")


def test_that_no_process_can_be_started_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atb_core.child.sys.executable", "/nowhere/python")
    assert "no process could be started" in (import_module("json") or "")


def test_modules_and_versions_are_looked_up_without_importing() -> None:
    probe = (
        "import sys\nfrom atb_ascend.machine import module_file\nfrom atb_core.distributions import version_of\n"
        "assert module_file('torch') and version_of('torch')\n"
        "assert module_file('no_such_module') is None and module_file('no_such.module') is None\n"
        "assert version_of('no-such-distribution') is None\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", probe]).returncode == 0


def test_damaged_metadata_of_a_package_is_no_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    write(tmp_path / "torch_npu-2.9.0.dist-info/METADATA", b"\xff\xfe\x00")
    assert version_of("torch_npu") is None
    assert module_file("") is None


def test_the_abi_of_the_torch_that_is_installed_is_what_torch_says() -> None:
    import torch

    assert torch_abi(Machine()) == int(torch.compiled_with_cxx11_abi())


def test_a_clone_of_the_sources_in_the_current_folder_is_not_what_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "atb_core").mkdir()
    (tmp_path / "atb_core/__init__.py").write_text("raise RuntimeError('the sources, where nothing is built')")
    monkeypatch.chdir(tmp_path)
    assert import_module("atb_core._cpu") is None
