# SPDX-License-Identifier: Apache-2.0
"""The public surface: all of it exists, our own plugins keep to it. `docs/api.md` shows how it changes."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import atb_core
from atb_core.plugins.api import API_VERSION, PUBLIC_MODULES, SUPPORTED_API_VERSIONS, private_imports, public_names

ROOT = Path(__file__).resolve().parents[2]
MODULES = [module for group in PUBLIC_MODULES.values() for module in group]
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


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_exists_and_says_what_it_is(module: str) -> None:
    home = import_module(module)
    assert len(set(home.__all__)) == len(home.__all__)
    values = {name: getattr(home, name) for name in home.__all__}
    assert [name for name, value in values.items() if callable(value) and not inspect.getdoc(value)] == []
    assert set(home.__all__) == public_names()[module]


def test_a_module_is_public_once() -> None:
    assert len(set(MODULES)) == len(MODULES)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.parent.name)
def test_our_own_plugins_import_nothing_else(package: Path) -> None:
    assert list(package.rglob("*.py"))
    assert [str(violation) for violation in private_imports(package)] == []


PRIVATE = {
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


@pytest.mark.parametrize("case", PRIVATE)
def test_an_import_outside_of_the_surface_is_found(case: str, tmp_path: Path) -> None:
    source, name = PRIVATE[case]
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "module.py").write_text(f'"""A plugin."""\n\n{source}\n', encoding="utf-8")
    (violation,) = private_imports(tmp_path)
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
    assert private_imports(tmp_path) == []
