# SPDX-License-Identifier: Apache-2.0
"""ATB_CORE_WITH_ATB finds the vendor's folders, or says which variable or file is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CXX = shutil.which("g++")
CMAKE = shutil.which("cmake")

pytestmark = pytest.mark.skipif(not (CXX and CMAKE), reason="needs CMake and a C++ compiler")

PROJECT = """
cmake_minimum_required(VERSION 3.20)
project(probe LANGUAGES CXX)
include({root}/cmake/AscendBackend.cmake)
atb_core_find_atb(found)
message(STATUS "found ${{found}}")
if(found)
  file(WRITE ${{CMAKE_BINARY_DIR}}/probe.cpp "#include <acl/acl.h>
#include <atb/atb_infer.h>
int probe() {{ return vendor_atb() + vendor_acl() + 100 * _GLIBCXX_USE_CXX11_ABI; }}")
  add_library(probe SHARED ${{CMAKE_BINARY_DIR}}/probe.cpp)
  target_link_libraries(probe PRIVATE Ascend::Ascend)
endif()
"""


def vendor(folder: Path, abi: int = 1) -> dict[str, str]:
    """Fakes of the vendor's folders with libraries that can be linked; returns the environment that names them."""
    atb, cann = folder / f"nnal/atb/latest/atb/cxx_abi_{abi}", folder / "cann"
    for home, header, name in ((atb, "atb/atb_infer.h", "lib/libatb.so"), (cann, "acl/acl.h", "lib64/libascendcl.so")):
        function = f"int vendor_{header[:3]}()"
        (home / "include" / header).parent.mkdir(parents=True)
        (home / "include" / header).write_text(f"{function};\n", encoding="utf-8")
        (home / name).parent.mkdir()
        code = f"{function} {{ return 1; }}\n"
        command = [str(CXX), "-x", "c++", "-", "-shared", "-fPIC", "-o", str(home / name)]
        subprocess.run(command, input=code, text=True, check=True)
    (cann / "include/hccl").mkdir()
    (cann / "include/hccl/hccl_types.h").write_text("", encoding="utf-8")
    return {"ATB_HOME_PATH": str(atb), "ASCEND_HOME_PATH": str(cann)}


def configure(folder: Path, environ: dict[str, str], *options: str) -> tuple[int, str]:
    (folder / "project").mkdir(exist_ok=True)
    (folder / "project/CMakeLists.txt").write_text(PROJECT.format(root=ROOT), encoding="utf-8")
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("ATB_", "ASCEND_"))}
    done = subprocess.run(
        [str(CMAKE), "-S", str(folder / "project"), "-B", str(folder / "build"), *options],
        env={**ours, **environ}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
    )  # fmt: skip
    return done.returncode, " ".join(done.stdout.split())  # CMake breaks long messages into lines


@pytest.mark.parametrize("abi", [0, 1])
def test_with_everything_there_a_target_has_includes_libraries_and_the_abi_of_the_folder(
    tmp_path: Path, abi: int
) -> None:
    status, out = configure(tmp_path, vendor(tmp_path, abi), "-DATB_CORE_WITH_ATB=ON")
    assert status == 0, out
    assert f"built against ATB, C++ ABI {abi}" in out
    subprocess.run([str(CMAKE), "--build", str(tmp_path / "build")], check=True, stdout=subprocess.DEVNULL)
    flags = next((tmp_path / "build").rglob("flags.make"), tmp_path / "build/build.ninja").read_text(encoding="utf-8")
    assert f"_GLIBCXX_USE_CXX11_ABI={abi}" in flags


def test_auto_without_anything_builds_nothing_and_says_so(tmp_path: Path) -> None:
    status, out = configure(tmp_path, {})
    assert status == 0
    assert "not built against ATB (ATB_HOME_PATH is not set: source .../nnal/atb/set_env.sh)" in out
    assert "found FALSE" in out


def test_auto_with_everything_builds_it_and_off_does_not(tmp_path: Path) -> None:
    environ = vendor(tmp_path)
    assert "found TRUE" in configure(tmp_path, environ)[1]
    assert "found FALSE" in configure(tmp_path, environ, "-DATB_CORE_WITH_ATB=OFF")[1]


def test_the_older_variable_and_cmake_variables_name_the_folders_too(tmp_path: Path) -> None:
    environ = vendor(tmp_path)
    environ["ASCEND_TOOLKIT_HOME"] = environ.pop("ASCEND_HOME_PATH")
    atb = environ.pop("ATB_HOME_PATH")
    assert "found TRUE" in configure(tmp_path, environ, f"-DATB_HOME_PATH={atb}")[1]


@pytest.mark.parametrize(
    ("unset", "told"),
    [
        ("ATB_HOME_PATH", "ATB_HOME_PATH is not set"),
        ("ASCEND_HOME_PATH", "neither ASCEND_HOME_PATH nor ASCEND_TOOLKIT_HOME is set"),
    ],
)
def test_on_without_a_variable_is_an_error_that_names_it(tmp_path: Path, unset: str, told: str) -> None:
    environ = vendor(tmp_path)
    del environ[unset]
    status, out = configure(tmp_path, environ, "-DATB_CORE_WITH_ATB=ON")
    assert status != 0
    assert f"ATB_CORE_WITH_ATB=ON, but {told}" in out


@pytest.mark.parametrize(
    ("variable", "file"),
    [
        ("ATB_HOME_PATH", "include/atb/atb_infer.h"),
        ("ATB_HOME_PATH", "lib/libatb.so"),
        ("ASCEND_HOME_PATH", "include/acl/acl.h"),
        ("ASCEND_HOME_PATH", "include/hccl/hccl_types.h"),
        ("ASCEND_HOME_PATH", "lib64/libascendcl.so"),
    ],
)
def test_on_with_a_missing_file_is_an_error_that_names_variable_and_file(
    tmp_path: Path, variable: str, file: str
) -> None:
    environ = vendor(tmp_path)
    (Path(environ[variable]) / file).unlink()
    status, out = configure(tmp_path, environ, "-DATB_CORE_WITH_ATB=ON")
    assert status != 0
    assert f"{variable}={environ[variable]} does not hold {file}" in out


def test_a_folder_that_names_no_abi_is_an_error_and_a_value_that_is_none_too(tmp_path: Path) -> None:
    environ = vendor(tmp_path)
    plain = tmp_path / "plain"
    Path(environ["ATB_HOME_PATH"]).rename(plain)
    environ["ATB_HOME_PATH"] = str(plain)
    status, out = configure(tmp_path, environ, "-DATB_CORE_WITH_ATB=ON")
    assert status != 0
    assert "does not name the folder of one C++ ABI" in out
    status, out = configure(tmp_path, environ, "-DATB_CORE_WITH_ATB=maybe")
    assert status != 0
    assert "must be ON, OFF or AUTO, not 'maybe'" in out
