# SPDX-License-Identifier: Apache-2.0
"""A missing C++ engine is an error that names the cause and the next step."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import atb_core

# An editable install of the core has a finder in `sys.meta_path`, which would add its engine to the copy.
_LOAD = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "ScikitBuild" not in type(finder).__name__]
sys.path.insert(0, sys.argv[1])
from atb_core.engine.extension import load_extension
from atb_core.errors import BackendUnavailableError
try:
    load_extension()
except BackendUnavailableError as error:
    print(error)
    print(error.hint)
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package without compiled modules."""
    source = Path(atb_core.__file__).parent
    return Path(shutil.copytree(source, tmp_path / "clone/atb_core", ignore=shutil.ignore_patterns("*.so", "*.pyc")))


def _load(package: Path) -> str:
    """Returns what an interpreter prints that imports `package` and loads its engine."""
    command = [sys.executable, "-c", _LOAD, str(package.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": ""})
    return done.stdout


def test_in_a_clone_without_an_engine_the_error_names_the_source_folder_and_how_to_install(package: Path) -> None:
    (package.parent / "csrc").mkdir()
    printed = _load(package)
    assert f"imported atb_core from the source folder {package}, which has no compiled engine" in printed
    assert "Install the clone with `nox -s dev` or `pip install --editable .`" in printed


def test_elsewhere_the_hint_is_to_reinstall(package: Path) -> None:
    printed = _load(package)
    assert "the C++ engine cannot be loaded: No module named 'atb_core._cpu'" in printed
    assert "Reinstall atb-core for this Python and platform" in printed


def test_an_engine_that_does_not_load_is_reported_with_the_loader_s_reason(package: Path) -> None:
    (package.parent / "csrc").mkdir()
    (package / "_cpu.so").write_bytes(b"no library")
    printed = _load(package)
    assert "the C++ engine cannot be loaded: " in printed
    assert "_cpu.so" in printed
