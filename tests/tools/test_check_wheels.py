# SPDX-License-Identifier: Apache-2.0
"""Tests that faults of a family's wheel are found."""

from __future__ import annotations

import zipfile
from pathlib import Path

import check_wheels
import pytest

GOOD = {
    "atb_foo/__init__.py": "",
    "atb_foo/router.py": "",
    "atb_foo/py.typed": "",
    "atb_foo-1.0.dist-info/licenses/LICENSE": "",
    "atb_foo-1.0.dist-info/entry_points.txt": "[atb_core.routers]\nfoo = atb_foo.router:FooRouter\n",
}


def wheel(folder: Path, files: dict[str, str], name: str = "atb_foo-1.0-py3-none-any.whl") -> Path:
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return path


def test_a_good_wheel_has_no_problem(tmp_path: Path) -> None:
    assert list(check_wheels.problems(wheel(tmp_path, GOOD))) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"atb_foo/_fast.so": ""}, "holds compiled code: atb_foo/_fast.so"),
        ({"tests/test_foo.py": ""}, "contains tests"),
        (
            {"atb_foo-1.0.dist-info/entry_points.txt": "[atb_core.routers]\nfoo = atb_foo.gone:X\n"},
            "the entry point atb_core.routers: foo = atb_foo.gone:X names no module",
        ),
    ],
)
def test_what_is_too_much_or_leads_nowhere_is_named(tmp_path: Path, change: dict[str, str], problem: str) -> None:
    path = wheel(tmp_path, {**GOOD, **change})
    found = list(check_wheels.problems(path))
    assert any(problem in line for line in found), found


@pytest.mark.parametrize(
    ("missing", "problem"),
    [("atb_foo/py.typed", "has no py.typed"), ("atb_foo-1.0.dist-info/licenses/LICENSE", "has no license file")],
)
def test_what_is_missing_is_named(tmp_path: Path, missing: str, problem: str) -> None:
    files = {name: text for name, text in GOOD.items() if name != missing}
    (found,) = check_wheels.problems(wheel(tmp_path, files))
    assert problem in found


@pytest.mark.parametrize(
    ("package", "modules", "problem"),
    [
        ("atb_core", ["_atb_sim", "_cpu"], "modules _atb_sim, _cpu instead of _cpu"),
        ("atb_core", ["_atb", "_cpu"], "modules _atb, _cpu instead of _cpu"),
        ("atb_sim", [], "modules none instead of _atb_sim"),
    ],
)
def test_a_wheel_with_other_extension_modules_than_its_own_is_refused(
    tmp_path: Path, package: str, modules: list[str], problem: str
) -> None:
    path = tmp_path / f"{package}-1.0-cp311-cp311-linux_x86_64.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for module in modules:
            archive.write(pytest.importorskip("_ssl").__file__, f"{package}/{module}.so")
    assert any(problem in line for line in check_wheels.problems(path))


def test_a_family_for_one_platform_is_refused(tmp_path: Path) -> None:
    path = wheel(tmp_path, GOOD, "atb_foo-1.0-cp311-cp311-linux_x86_64.whl")
    (found,) = check_wheels.problems(path)
    assert "a plugin is pure Python" in found


def test_a_library_that_the_engine_must_not_need_is_named(tmp_path: Path) -> None:
    ssl = pytest.importorskip("_ssl").__file__
    path = tmp_path / "atb_core-1.0-cp311-cp311-linux_x86_64.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(ssl, "atb_core/_cpu.so")
    assert any("_cpu.so is linked to libssl" in line for line in check_wheels.problems(path))
