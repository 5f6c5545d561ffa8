# SPDX-License-Identifier: Apache-2.0
"""Tests that faults of wheels, pure and compiled, are found."""

from __future__ import annotations

import importlib
import importlib.util
import json
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


def test_a_family_for_one_platform_is_refused(tmp_path: Path) -> None:
    path = wheel(tmp_path, GOOD, "atb_foo-1.0-cp311-cp311-linux_x86_64.whl")
    (found,) = check_wheels.problems(path)
    assert "a plugin is pure Python" in found


SBOM = {"components": [{"name": "nanobind", "version": "3.1.0"}, {"name": "robin-map", "version": "1.4.0"}]}
INFO = "atb_core-1.0.dist-info"
NOTICES = {
    f"{INFO}/licenses/LICENSE": "",
    f"{INFO}/licenses/licenses/nanobind.txt": "",
    f"{INFO}/licenses/licenses/robin-map.txt": "",
    f"{INFO}/sboms/atb-core.cdx.json": json.dumps(SBOM),
}


def compiled(
    folder: Path, files: dict[str, str], modules: tuple[str, ...] = ("_cpu",), tag: str = "cp311-cp311"
) -> Path:
    """Writes a wheel of the core with extension modules that are linked to the system's libraries only."""
    path = wheel(folder, {"atb_core/py.typed": "", **files}, f"atb_core-1.0-{tag}-linux_x86_64.whl")
    with zipfile.ZipFile(path, "a") as archive:
        for module in modules:
            archive.write(_small_library(), f"atb_core/{module}.so")
    return path


def _small_library() -> str:
    """A shared library that is linked to the C library only: a module of Python itself."""
    path = importlib.import_module("_queue").__spec__.origin
    if path == "built-in":
        pytest.skip("this Python has its modules built in")
    return path


@pytest.mark.parametrize("tag", ["cp310-cp310", "cp311-cp311", "cp312-abi3"])
def test_a_good_compiled_wheel_has_no_problem(tmp_path: Path, tag: str) -> None:
    assert list(check_wheels.problems(compiled(tmp_path, NOTICES, tag=tag))) == []


@pytest.mark.parametrize("tag", ["cp312-cp312", "cp313-cp313", "cp313-abi3", "py3-none"])
def test_a_compiled_wheel_that_later_versions_of_python_would_refuse_is_named(tmp_path: Path, tag: str) -> None:
    (found,) = check_wheels.problems(compiled(tmp_path, NOTICES, tag=tag))
    assert "from Python 3.12 on the tag is cp312-abi3" in found


@pytest.mark.parametrize(
    ("modules", "problem"),
    [
        (("_atb_sim", "_cpu"), "modules _atb_sim, _cpu instead of _cpu"),
        (("_atb", "_cpu"), "modules _atb, _cpu instead of _cpu"),
        ((), "modules none instead of _cpu"),
    ],
)
def test_other_extension_modules_than_the_package_s_own_are_refused(
    tmp_path: Path, modules: tuple[str, ...], problem: str
) -> None:
    (found,) = check_wheels.problems(compiled(tmp_path, NOTICES, modules))
    assert problem in found


@pytest.mark.parametrize(
    ("missing", "problem"),
    [
        ("licenses/licenses/nanobind.txt", "no licence file nanobind.txt"),
        ("licenses/licenses/robin-map.txt", "no licence file robin-map.txt"),
        ("sboms/atb-core.cdx.json", "no SBOM that lists nanobind, robin-map"),
    ],
)
def test_a_notice_of_linked_code_that_is_missing_is_named(tmp_path: Path, missing: str, problem: str) -> None:
    files = {name: text for name, text in NOTICES.items() if name != f"{INFO}/{missing}"}
    (found,) = check_wheels.problems(compiled(tmp_path, files))
    assert problem in found


def test_an_sbom_without_a_version_does_not_count(tmp_path: Path) -> None:
    sbom = {"components": [{"name": "nanobind", "version": ""}, SBOM["components"][1]]}
    (found,) = check_wheels.problems(
        compiled(tmp_path, {**NOTICES, f"{INFO}/sboms/atb-core.cdx.json": json.dumps(sbom)})
    )
    assert "no SBOM that lists nanobind with its version" in found


def test_a_library_that_the_engine_must_not_need_is_named(tmp_path: Path) -> None:
    (torch,) = importlib.util.find_spec("torch").submodule_search_locations
    (extension,) = Path(torch).glob("_C.*.so")
    path = compiled(tmp_path, NOTICES, ())
    with zipfile.ZipFile(path, "a") as archive:
        archive.write(extension, "atb_core/_cpu.so")
    assert any("_cpu.so is linked to libtorch_python.so" in line for line in check_wheels.problems(path))
