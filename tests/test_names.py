# SPDX-License-Identifier: Apache-2.0
"""Names of distributions, and the command that installs one."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from atb_core import names
from atb_core.names import BROUGHT, OWN_PACKAGES, pip_install
from atb_core.plugins.hookspecs import HOOKS

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

PLUGINS = Path(__file__).parents[1] / "plugins"


def test_every_distribution_of_the_repository_is_known_as_ours() -> None:
    assert {folder.parent.name for folder in PLUGINS.glob("*/pyproject.toml")} <= OWN_PACKAGES


def test_what_packages_bring_is_for_hooks_that_there_are() -> None:
    assert BROUGHT.keys() <= set(HOOKS)
    assert {package for names in BROUGHT.values() for package in names.values()} <= OWN_PACKAGES


def test_a_package_of_others_is_installed_by_name() -> None:
    assert pip_install("transformers") == "pip install transformers"
    assert pip_install("atb-mamba[fast]") == "pip install 'atb-mamba[fast]'"


def test_in_a_clone_our_own_are_installed_from_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "a clone" / "plugins" / "atb-testing"
    folder.mkdir(parents=True)
    monkeypatch.setattr(names, "__file__", str(tmp_path / "a clone" / "atb_core" / "names.py"))
    assert shlex.split(pip_install("atb-testing[scaffold]")) == ["pip", "install", f"{folder}[scaffold]"]


def test_what_a_package_needs_is_installed_with_it() -> None:
    wanted = [str(PLUGINS / "atb-embed"), f"{PLUGINS / 'atb-serve'}[ray]"]
    assert shlex.split(pip_install("atb-serve[ray]")) == ["pip", "install", *wanted]


@pytest.mark.parametrize("folder", sorted(PLUGINS.glob("*/pyproject.toml")), ids=lambda path: path.parent.name)
def test_the_command_names_all_that_a_package_of_ours_requires(folder: Path) -> None:
    project = tomllib.loads(folder.read_text(encoding="utf-8"))["project"]
    required = {Requirement(each).name for each in project.get("dependencies", [])} & OWN_PACKAGES
    # Whoever asks for one has the core, and mostly the command, with what that needs.
    required -= {"atb-core", "atb-cli", "atb-ascend", "atb-hub", "atb-lora"}
    named = {Path(each).name for each in shlex.split(pip_install(folder.parent.name))}
    assert required <= named


def test_elsewhere_name_and_folder_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(names, "__file__", str(tmp_path / "site-packages" / "atb_core" / "names.py"))
    assert pip_install("atb-qwen3") == (
        "pip install atb-qwen3 (in a clone of the repository: pip install ./plugins/atb-qwen3)"
    )
