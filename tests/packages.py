# SPDX-License-Identifier: Apache-2.0
"""Packages of families as their users get them: built, installed into a folder of their own, their kit run there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

#: Selects tests of a kit, of which a whole one takes minutes: the family's own work on the C++ engine, in two types.
#: The third type and the reference run the same code for every family, and whole kits of those of the repository.
BRIEFLY = "not bfloat16 and not reference"


def install(source: Path, site: Path) -> None:
    """Builds the package in `source` and installs it into `site`; asks no index for anything."""
    pytest.importorskip("hatchling")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(site), str(source)], check=True, timeout=120)


def run_kit(source: Path, workplace: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Runs the tests of the package in `source` with what is installed in `workplace / "site"` and no other family.

    They run from a copy of the tests alone, so that nothing of the sources can be imported.
    """
    away = workplace / "away"
    shutil.copytree(source / "tests", away / "tests")
    name = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]
    environment = {**os.environ, "PYTHONPATH": str(workplace / "site"), "ATB_PLUGINS": f"{name},atb-lora"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib"]
    return subprocess.run(
        [*command, "--rootdir", str(away), *args, "tests"],
        cwd=away, env=environment, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
