# SPDX-License-Identifier: Apache-2.0
"""The distributions are the core and what lies in `plugins/`; what has to name them names all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from repository import Package, closure, newest_file, packages, required_name, third_party

CORE = """
[project]
name = "atb-core"
dependencies = ["numpy>=1.26", "tqdm>=4.66"]
[project.optional-dependencies]
test = ["atb-kit>=1", "pytest>=8"]
"""
KIT = """
[project]
name = "atb-kit"
dependencies = ["atb-core[hf]>=1,<2", "numpy>=1.26"]
[project.optional-dependencies]
test = ["atb-foo>=1,<2"]
"""
FOO = """
[project]
name = "atb-foo"
dependencies = ["atb-core>=1", "filelock>=3.12; python_version >= '3.10'"]
"""
BAR = """
[project]
name = "atb-foo-bar"
dependencies = ["atb-core>=1"]
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository of a core, a kit, two plugins and a folder that is no package."""
    for folder, project in ((".", CORE), ("plugins/kit", KIT), ("plugins/foo", FOO), ("plugins/bar", BAR)):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "pyproject.toml").write_text(project)
    (tmp_path / "plugins/notes").mkdir()
    return tmp_path


def names(found: list[Package]) -> list[str]:
    return [package.name for package in found]


def test_packages_are_found_by_their_folders_the_core_first(root: Path) -> None:
    assert names(packages(root)) == ["atb-core", "atb-foo-bar", "atb-foo", "atb-kit"]


def test_the_packages_that_others_need_are_found_through_requirements_and_those_of_tests(root: Path) -> None:
    core, *plugins = packages(root)
    bar, foo, _ = plugins
    assert names(closure([core], plugins)) == ["atb-core", "atb-kit", "atb-foo"]
    assert names(closure([bar], plugins)) == ["atb-foo-bar"]  # atb-foo is not a part of its name
    assert names(closure([foo], [core])) == ["atb-foo", "atb-core"]


def test_requirements_of_others_are_those_that_no_package_of_the_repository_meets(root: Path) -> None:
    expected = ["filelock>=3.12; python_version >= '3.10'", "numpy>=1.26", "tqdm>=4.66"]
    assert third_party(packages(root)) == expected


def test_a_package_is_asked_for_the_extras_that_it_has(root: Path) -> None:
    core, bar, *_ = packages(root)
    assert (core.with_extras("test", "lint"), bar.with_extras("test")) == ("atb-core[test]", "atb-foo-bar")


def test_the_import_contracts_name_every_package() -> None:
    core, *plugins = packages()
    linter = core.pyproject["tool"]["importlinter"]
    modules = sorted(package.module for package in plugins)
    assert linter["root_packages"] == [core.module, *modules]
    (above,) = [one for one in linter["contracts"] if one["name"].startswith("plugins above the core")]
    *above_core, lowest = above["layers"]
    assert (sorted(module for layer in above_core for module in layer.split(" | ")), lowest) == (modules, core.module)


def test_every_package_has_its_code_where_its_name_says() -> None:
    for package in packages()[1:]:
        assert (package.folder / "src" / package.module / "py.typed").is_file(), package.name


def test_the_pure_packages_and_the_cores_tests_can_be_installed_without_what_is_compiled() -> None:
    core, *plugins = packages()
    compiled = {package.name for package in plugins if package.compiled}
    pure = [package for package in plugins if not package.compiled]
    required = [line for package in (core, *pure) for line in package.dependencies] + core.extra("test")
    assert compiled
    assert not compiled & {required_name(line) for line in required}


def test_newest_file_tells_whether_a_wheel_is_older_than_its_sources(tmp_path: Path) -> None:
    folder = tmp_path / "package" / "inner"
    folder.mkdir(parents=True)
    for changed, file in enumerate(
        (tmp_path / "build.txt", folder / "old.py", folder / "new.cpp", folder / "made.pyc")
    ):
        file.touch()
        os.utime(file, (changed, changed))
    assert newest_file(tmp_path / "build.txt", tmp_path / "package") == folder / "new.cpp"
