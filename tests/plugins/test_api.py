# SPDX-License-Identifier: Apache-2.0
"""The public surface: all of it exists, our own plugins keep to it, and it does not change unseen."""

from __future__ import annotations

import difflib
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import atb_core
from atb_core.plugins.api import API_VERSION, SUPPORTED_API_VERSIONS, SURFACE, foreign_imports
from atb_core.plugins.api_listing import listing

ROOT = Path(__file__).resolve().parents[2]
FROZEN = Path(__file__).with_name("api_v1.txt")
# The conformance kit looks inside models and engines; its requirement of atb-core is as narrow.
FRIENDS = {"atb-testing"}
SOURCES = sorted([*ROOT.glob("plugins/*/src"), *ROOT.glob("examples/*/src")])
PACKAGES = [source for source in SOURCES if source.parent.name not in FRIENDS]


def test_the_version_is_there_without_torch() -> None:
    code = "import sys, atb_core; print(atb_core.API_VERSION); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == atb_core.API_VERSION == API_VERSION


def test_this_version_and_the_one_before_are_supported() -> None:
    assert {v for v in (API_VERSION, API_VERSION - 1) if v > 0} == SUPPORTED_API_VERSIONS


@pytest.mark.parametrize("module", SURFACE)
def test_every_public_name_exists(module: str) -> None:
    home = import_module(module)
    assert [name for name in SURFACE[module] if not hasattr(home, name)] == []
    assert len(set(SURFACE[module])) == len(SURFACE[module])


@pytest.mark.parametrize("module", ["atb_core", "atb_core.errors", "atb_core.nn", "atb_core.nn.functional",
                                    "atb_core.graph", "atb_core.graph.ops"])  # fmt: skip
def test_what_a_module_of_the_surface_exports_is_public(module: str) -> None:
    assert sorted(import_module(module).__all__) == sorted(SURFACE[module])


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.parent.name)
def test_our_own_plugins_import_nothing_else(package: Path) -> None:
    assert list(package.rglob("*.py"))
    assert [str(violation) for violation in foreign_imports(package)] == []


def test_the_surface_is_the_one_that_was_reviewed() -> None:
    """On purpose: `python -m atb_core.plugins.api_listing > tests/plugins/api_v1.txt`, and the diff is reviewed."""
    frozen = FROZEN.read_text(encoding="utf-8").splitlines()
    assert list(difflib.unified_diff(frozen, listing().splitlines(), "api_v1.txt", "code", lineterm="", n=1)) == []


FOREIGN = {
    "a private module": ("import atb_core.runner.sampler", "atb_core.runner.sampler"),
    "a private name of a public module": (
        "from atb_core.models.base.router import _MAX_JSON_BYTES",
        "atb_core.models.base.router._MAX_JSON_BYTES",
    ),
    "a name of a private module": (
        "from atb_core.runner.sampler import Sampler",
        "atb_core.runner.sampler.Sampler",
    ),
    "a private module as a name": ("from atb_core import engine", "atb_core.engine"),
    "everything": ("from atb_core.nn.functional import *", "atb_core.nn.functional.*"),
    "inside a function": ("def f():\n    from atb_core.engine import cpu", "atb_core.engine.cpu"),
    "for the type checker": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from atb_core.engine.base import Backend",
        "atb_core.engine.base.Backend",
    ),
    "by attribute": ("import atb_core\nx = atb_core.runner.sampler.Sampler", "atb_core.runner.sampler"),
    "by attribute of a public module": (
        "from atb_core.nn import functional as F\nF.author_line()",
        "atb_core.nn.functional.author_line",
    ),
    "by name": ("from importlib import import_module\nimport_module('atb_core._cpu')", "atb_core._cpu"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_an_import_outside_of_the_surface_is_found(case: str, tmp_path: Path) -> None:
    source, name = FOREIGN[case]
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "module.py").write_text(f'"""A plugin."""\n\n{source}\n', encoding="utf-8")
    (violation,) = foreign_imports(tmp_path)
    assert violation.name == name
    assert source.splitlines()[violation.line - 3].strip()
    assert str(violation).startswith(f"{tmp_path}/inner/module.py:{violation.line}: {name} is not part of the public")


PUBLIC = """
import json, torch
import atb_core
import atb_core.nn.functional
import atb_core.graph.ops as ops
from . import sibling
from .engine import base
from atb_core import ModelRunner, nn
from atb_core.nn import functional as F
from atb_core.graph import Tensor

atb_core.nn.functional.linear, atb_core.__version__, atb_core.layers.mlp.mlp.Mlp
ops.Linear.samples, F.ActType.SWISH, nn.Module.forward, ModelRunner.generate, Tensor.to
json.atb_core
"""


def test_imports_of_the_surface_and_of_others_are_none(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(PUBLIC, encoding="utf-8")
    assert foreign_imports(tmp_path) == []
