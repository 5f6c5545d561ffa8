# SPDX-License-Identifier: Apache-2.0
"""The check against a vendor's headers takes them in every form they come in, and says what fails or is missing."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import check_ascend_headers as tool
import pytest

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")

ACL = {"acl/acl.h": "#pragma once\ntypedef void* aclrtStream;\n"}
HCCL = {"hccl/hccl_types.h": "#pragma once\ntypedef void* HcclComm;\n"}
ATB = {
    "atb/atb_infer.h": "#pragma once\n#include <aclnn/acl_meta.h>\n#include <acl/acl.h>\n#include <string>\n"
    "namespace atb { struct Named { std::string name; }; void use(aclTensor*, aclOpExecutor*); }\n",
    "atb/infer_op_params.h": "struct LinearParam {};\nstruct ActivationParam {};\n",
}
REDUCED = {**ATB, "atb/infer_op_params.h": "struct LinearParam {};\n"}
USES = "#include <acl/acl.h>\n#include <atb/atb_infer.h>\n#include <hccl/hccl_types.h>\n"


def tree(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def third_party(folder: Path) -> Path:
    tree(folder / "acl/inc", ACL)
    tree(folder / "hccl/inc", HCCL)
    return folder


@pytest.fixture
def acl(tmp_path: Path) -> Path:
    return third_party(tmp_path / "third_party")


@pytest.fixture
def atb(tmp_path: Path) -> Path:
    return tree(tmp_path / "nnal", ATB)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "uses.cpp"
    path.write_text(USES, encoding="utf-8")
    return path


def run(*args: object) -> int:
    return tool.main([str(arg) for arg in args])


def test_a_file_that_compiles_is_ok_for_both_abis(
    acl: Path, atb: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--acl", acl, "--atb", atb, source) == 0
    out = capsys.readouterr().out
    assert [line.split()[:3] for line in out.splitlines() if line.startswith("ok")] == [
        ["ok", "abi", "0"],
        ["ok", "abi", "1"],
    ]
    assert "aclnn/acl_meta.h: a stand-in" in out
    assert out.endswith("2 of 2 compile\n")


def test_a_file_that_fails_for_one_abi_is_told_with_the_compilers_words(
    acl: Path, atb: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source.write_text(f"{USES}static_assert(sizeof(atb::Named) == 32);\n", encoding="utf-8")
    assert run("--acl", acl, "--atb", atb, source) == 1
    out = capsys.readouterr().out
    assert "FAIL  abi 0" in out
    assert "ok    abi 1" in out
    assert "static assertion failed" in out
    assert run("--acl", acl, "--atb", atb, "--abi", "1", source) == 0


def test_a_warning_is_a_failure_but_not_one_in_a_vendors_header(acl: Path, atb: Path, source: Path) -> None:
    source.write_text(f"{USES}int f(int unused) {{ return 0; }}\n", encoding="utf-8")
    assert run("--acl", acl, "--atb", atb, "--abi", "1", source) == 1
    source.write_text(USES, encoding="utf-8")
    tree(acl / "acl/inc", {"acl/acl.h": "#pragma once\ninline int g(int unused) { return 0; }\n"})
    assert run("--acl", acl, "--atb", atb, "--abi", "1", source) == 0


@pytest.mark.parametrize("name", ["include/third_party", "third_party", "."])
def test_acls_headers_are_found_in_a_package_of_torch_npu_and_below_it(
    tmp_path: Path, atb: Path, source: Path, name: str
) -> None:
    third_party(tmp_path / "torch_npu" / name)
    assert run("--acl", tmp_path / "torch_npu", "--atb", atb, "--abi", "1", source) == 0


@pytest.mark.parametrize("name", ["include", "."])
def test_acls_headers_are_found_in_a_toolkit(tmp_path: Path, atb: Path, source: Path, name: str) -> None:
    tree(tmp_path / "toolkit" / name, {**ACL, **HCCL, "aclnn/acl_meta.h": "struct aclTensor; struct aclOpExecutor;\n"})
    assert run("--acl", tmp_path / "toolkit", "--atb", atb, "--abi", "1", source) == 0


def test_atbs_headers_are_found_from_atb_home_path_too(tmp_path: Path, acl: Path, source: Path) -> None:
    tree(tmp_path / "cxx_abi_1/include", ATB)
    assert run("--acl", acl, "--atb", tmp_path / "cxx_abi_1", "--abi", "1", source) == 0


def test_a_wheel_is_unpacked_as_far_as_needed(
    tmp_path: Path, acl: Path, atb: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tmp_path / "torch_npu-2.9.0-cp311-cp311-linux_x86_64.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in sorted(acl.rglob("*.h")):
            archive.write(file, f"torch_npu/include/third_party/{file.relative_to(acl)}")
        archive.writestr("torch_npu/lib/huge.so", "not wanted")
    unpacked = tmp_path / "unpacked"
    assert [path.relative_to(unpacked) for path in tool.acl_folders(wheel, unpacked)] == [
        Path("wheel/torch_npu/include/third_party/acl/inc"),
        Path("wheel/torch_npu/include/third_party/hccl/inc"),
    ]
    assert not list(unpacked.rglob("*.so"))
    assert run("--acl", wheel, "--atb", atb, "--abi", "1", source) == 0


def test_the_simulators_headers_are_the_default_and_its_acl_is_not_used(
    tmp_path: Path, acl: Path, source: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = tree(tmp_path / "sim", {**ATB, "acl/acl.h": "#error the simulator's\n", "sim/control.h": ""})
    monkeypatch.setattr(tool, "SIMULATOR", simulator)
    assert run("--acl", acl, "--abi", "1", source) == 0
    assert "ATB: the simulator's own declarations (only ACL's and HCCL's" in capsys.readouterr().out


def test_with_reduced_headers_files_that_need_more_are_left_out_and_that_is_told(
    tmp_path: Path, acl: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = {
        "csrc/atb/linear.cpp": f"{USES}// ::atb::infer::LinearParam\n",
        "csrc/atb/gather.cpp": "#error needs infer::GatherParam\n",
        "layout.cpp": f"{USES}#ifndef ATB_CHECK_REDUCED\n#error all of it\n#endif\n",
    }
    monkeypatch.setattr(tool, "ROOT", tree(tmp_path / "project", backend))
    monkeypatch.setattr(tool, "LAYOUT", tool.ROOT / "layout.cpp")
    assert run("--acl", acl, "--atb", tree(tmp_path / "reduced", REDUCED), "--abi", "1") == 0
    out = capsys.readouterr().out
    assert "files that use other operations are not compiled" in out
    assert "linear.cpp" in out and out.endswith("2 of 2 compile\n")


@pytest.mark.parametrize("abi", ["0", "1"])
def test_the_simulators_headers_have_the_layouts_and_numbers_of_atb(abi: str) -> None:
    assert run("--acl", tool.SIMULATOR, "--abi", abi, tool.LAYOUT) == 0


def test_the_backends_sources_and_the_layouts_are_what_is_compiled() -> None:
    files = [path.relative_to(tool.ROOT).as_posix() for path in tool.sources([], tool.Headers((), (), reduced=False))]
    assert files[-1] == "csrc/atb/checks/layout_check.cpp"
    assert "csrc/atb/device.cpp" in files
    assert not [file for file in files if "/sim/" in file]


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ("acl/inc/acl/acl.h", "does not contain ACL's headers: acl/acl.h is missing"),
        ("hccl/inc/hccl/hccl_types.h", "does not contain HCCL's headers: hccl/inc/hccl/hccl_types.h is missing"),
    ],
)
def test_a_missing_header_is_a_usage_error_that_names_it(
    acl: Path, atb: Path, source: Path, missing: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (acl / missing).unlink()
    assert run("--acl", acl, "--atb", atb, source) == 2
    assert told in capsys.readouterr().err


def test_a_folder_without_atb_a_damaged_wheel_and_a_missing_file_are_usage_errors(
    tmp_path: Path, acl: Path, atb: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--acl", acl, "--atb", tmp_path, source) == 2
    wheel = tmp_path / "torch_npu.whl"
    wheel.write_text("no archive", encoding="utf-8")
    assert run("--acl", wheel, "--atb", atb, source) == 2
    assert run("--acl", acl, "--atb", atb, tmp_path / "nothing.cpp") == 2
    told = capsys.readouterr().err
    assert "atb/atb_infer.h is missing" in told
    assert "cannot be unpacked" in told
    assert "no such file" in told


def test_a_compiler_that_is_not_there_and_missing_arguments_are_usage_errors(
    acl: Path, atb: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--acl", acl, "--atb", atb, "--cxx", "no-such-compiler", source) == 2
    assert "no-such-compiler cannot be run" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        run()
