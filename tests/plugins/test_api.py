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
from atb_core.plugins.api import API_VERSION, PUBLIC_MODULES, SUPPORTED_API_VERSIONS, public_names
from atb_testing.surface import private_imports

ROOT = Path(__file__).resolve().parents[2]
MODULES = [module for group in PUBLIC_MODULES.values() for module in group]
# The check of a machine uses the core's child processes, the conformance kit and profiles look inside models and
# engines, models of C++ are run by the parts of engines, commands look into the registry of plugins and settings, the
# server and embeddings use types of the runner, tokenizers of ATB-Models the limits of others; their requirements of
# atb-core are as narrow.
FRIENDS = {"atb-ascend", "atb-cli", "atb-cpp-models", "atb-embed", "atb-hub", "atb-lora", "atb-ops", "atb-parallel"}
FRIENDS |= {"atb-profile", "atb-serve", "atb-testing"}
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
