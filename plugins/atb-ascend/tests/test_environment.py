# SPDX-License-Identifier: Apache-2.0
"""Good, incomplete, mismatched and damaged installations get the findings that they deserve."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from ascend_machines import Box, driver, good_box, new_cann, nnal, old_cann, torch_package, write

from atb_ascend import Finding, Level, missing_for_backend, unavailable
from atb_ascend.machine import module_file
from atb_ascend.modules import extension_abi


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return good_box(tmp_path)


def test_a_machine_without_anything_of_ascend_is_healthy_and_says_so_once(tmp_path: Path) -> None:
    box = Box(tmp_path, packages={"torch": "2.13.0+cpu"}, modules={"_cpu"})
    report = box.examine()
    assert report.healthy
    assert report.usable() == ("cpu", "reference")
    (absent,) = report.missing("atb")
    assert (absent.check, absent.level) == ("ascend", Level.ABSENT)
    assert absent.cause and absent.fix
    assert str(unavailable([absent])).startswith("backend 'atb' (Ascend) cannot be used here: ascend: no NPU in /dev")


@pytest.mark.parametrize("part", ["device", "driver", "torch_npu", "backend"])
def test_with_one_part_of_ascend_the_others_are_missed_one_by_one(tmp_path: Path, part: str) -> None:
    box = Box(tmp_path, packages={"torch": "2.9.0"}, modules={"_cpu"})
    if part == "device":
        write(box.base / "dev/davinci0")
    elif part == "driver":
        write(box.root / "driver/version.info", "Version=25.0\n")
    elif part == "torch_npu":
        box.packages["torch_npu"] = "2.9.0"
    else:
        box.modules.add("_atb")
    levels = box.levels()
    assert "ascend" not in levels
    assert levels["cann"] is levels["atb"] is Level.WARNING


def test_a_good_installation_since_8_5_has_every_backend(box: Box) -> None:
    report = box.examine()
    assert {finding.check for finding in report.findings if finding.level is not Level.OK} == set()
    assert report.usable() == ("cpu", "reference", "atb", "atb-sim")
    assert missing_for_backend(box.machine()) == []
    assert box.finding("versions").message == "ATB 8.5.0 with CANN 8.5.0"
    assert box.finding("driver").message.startswith("25.0.rc1.1 in ")


def test_a_good_installation_before_8_5_has_every_backend(tmp_path: Path) -> None:
    box = Box(tmp_path)
    torch_package(box, abi=0)
    driver(box)
    old_cann(box)
    nnal(box, "8.2.RC1", abi=0)
    assert set(box.levels().values()) == {Level.OK}
    assert box.finding("versions").message == "ATB 8.2.RC1 with CANN 8.2.RC1"


def test_libraries_and_extensions_are_really_tried(box: Box) -> None:
    box.examine()
    assert box.loaded == [
        "libascendcl.so", "libopapi.so", "libatb.so", "torch_npu", "atb_core._atb", "atb_sim._atb_sim", "atb_core._cpu",
    ]  # fmt: skip


def test_what_the_backend_lacks_is_told_without_trying_the_other_engines(box: Box) -> None:
    box.packages.pop("torch_npu")
    assert [finding.check for finding in missing_for_backend(box.machine())] == ["torch_npu"]
    assert "atb_core._cpu" not in box.loaded


def test_the_error_of_the_backend_names_everything_that_lacks_and_the_first_step(box: Box) -> None:
    box.packages.pop("torch_npu")
    (box.root / "driver/version.info").unlink()
    (box.root / "driver").rmdir()
    (box.base / "dev/davinci0").unlink()
    text = str(unavailable(missing_for_backend(box.machine())))
    assert text.startswith(f"backend 'atb' (Ascend) cannot be used here: driver: no {box.root}/driver; devices: there")
    assert "; torch_npu: it is not installed, and torch reaches an NPU through it" in text
    assert "`atb doctor` shows all checks. First: Install driver and firmware" in text
    torchless = [Finding("torch_npu", Level.ERROR, "2.9.0", "torch is not installed")]
    assert str(unavailable(torchless)).endswith("`atb doctor` shows all checks.")


def test_the_error_on_a_machine_without_a_card_names_the_backends_that_need_none(box: Box) -> None:
    nothing = [Finding("ascend", Level.ABSENT, "nothing of it is here", "no NPU", "Nothing.", ("atb",))]
    text = str(unavailable(nothing))
    assert "the backend cpu computes, and atb-sim, of the package atb-sim, simulates one." in text
    assert "First:" not in text


# --- torch and torch_npu ----------------------------------------------------------------------------------------------


def test_a_missing_torch_npu_is_a_warning_where_ascend_is_and_names_the_version_to_install(box: Box) -> None:
    box.packages.pop("torch_npu")
    found = box.finding("torch_npu")
    assert (found.level, found.fix) == (Level.WARNING, 'pip install "torch_npu==2.9.*"')
    assert box.examine().healthy


def test_a_torch_npu_for_another_minor_of_torch_is_an_error(box: Box) -> None:
    box.packages["torch_npu"] = "2.8.0.post2"
    found = box.finding("torch_npu")
    assert found.level is Level.ERROR
    assert found.cause == "torch_npu 2.8.0.post2 is built for torch 2.8.*, installed is torch 2.9.0+cpu"
    assert found.fix == 'pip install "torch_npu==2.9.*", or pip install "torch==2.8.*"'
    assert not box.examine().healthy


def test_another_patch_version_of_torch_npu_fits(box: Box) -> None:
    box.packages["torch_npu"] = "2.9.0.post1"
    assert box.finding("torch_npu").level is Level.OK


def test_a_machine_without_torch_and_ascend_is_healthy(tmp_path: Path) -> None:
    report = Box(tmp_path, packages={}, modules={"_cpu"}).examine()
    assert report.healthy
    assert report.usable() == ("cpu",)
    assert [finding.check for finding in report.missing("reference")] == ["torch"]


def test_without_torch_neither_a_card_nor_the_reference_can_be_used(box: Box) -> None:
    box.packages.pop("torch")
    assert box.examine().usable() == ("cpu", "atb-sim")
    assert box.finding("torch_npu").cause == "torch is not installed"
    assert box.finding("abi").level is Level.WARNING


def test_versions_that_are_no_versions_do_not_end_the_examination(box: Box) -> None:
    box.packages.update(torch="main", torch_npu="nightly")
    assert box.finding("torch_npu").level is Level.OK  # neither says anything that could be held against the other
    box.packages["torch_npu"] = "2.9.0"
    assert box.finding("torch_npu").level is Level.ERROR
    box.packages.update(torch="2.9.0", torch_npu="nightly")
    assert "torch nightly.*" in (box.finding("torch_npu").cause or "")


def test_a_torch_npu_that_cannot_be_imported_is_an_error_with_the_reason(box: Box) -> None:
    box.broken["torch_npu"] = "ImportError: libhccl.so: cannot open shared object file: No such file or directory"
    found = box.finding("torch_npu")
    assert (found.level, found.message) == (Level.ERROR, "2.9.0 does not import")
    assert (found.cause, found.blocks) == (box.broken["torch_npu"], ("atb",))
    assert "set_env.sh of CANN" in (found.fix or "")
    assert "atb" not in box.examine().usable()
    assert not box.examine().healthy


def test_the_backend_itself_imports_torch_npu_and_not_a_second_time_before(box: Box) -> None:
    missing_for_backend(box.machine())
    assert "torch_npu" not in box.loaded


def test_a_torch_npu_of_another_torch_is_not_imported(box: Box) -> None:
    box.packages["torch_npu"] = "2.8.0"
    box.examine()
    assert "torch_npu" not in box.loaded


# --- Switches ---------------------------------------------------------------------------------------------------------


def test_switches_are_shown_and_fine_by_default(box: Box) -> None:
    assert box.finding("switches").message == "at their defaults"
    box.environ["ATB_OPERATION_EXECUTE_ASYNC"] = "1"
    found = box.finding("switches")
    assert (found.level, found.message) == (Level.OK, "ATB_OPERATION_EXECUTE_ASYNC=1")
    box.environ["INF_NAN_MODE_ENABLE"] = "0"
    assert box.finding("switches").message == "ATB_OPERATION_EXECUTE_ASYNC=1, INF_NAN_MODE_ENABLE=0"


@pytest.mark.parametrize(
    ("name", "value", "cause"),
    [
        ("ATB_OPERATION_EXECUTE_ASYNC", "2", "='2' is neither 0 nor 1 (2, the three stages of ATB-Models, is not"),
        ("ASCEND_LAUNCH_BLOCKING", "true", "='true' is neither 0 nor 1"),
        ("ATB_LLM_ENABLE_AUTO_TRANSPOSE", "-1", "='-1' is neither 0 nor 1"),
    ],
)
def test_a_switch_that_the_backends_refuse_is_an_error_with_a_next_step(
    box: Box, name: str, value: str, cause: str
) -> None:
    box.environ[name] = value
    found = box.finding("switches")
    assert (found.level, found.blocks) == (Level.ERROR, ("atb", "atb-sim"))
    assert f"{name}{cause}" in (found.cause or "")
    assert found.fix == f"Correct them, or: unset {name}"
    assert box.examine().usable() == ("cpu", "reference")


@pytest.mark.parametrize(("name", "what"), [("ATB_SIM_MEMORY", "bytes"), ("ATB_SIM_DEVICES", "devices")])
def test_a_number_of_the_simulator_that_is_none_blocks_the_simulator_only(box: Box, name: str, what: str) -> None:
    box.environ[name] = "abc"
    found = box.finding("switches")
    assert (found.level, found.blocks) == (Level.ERROR, ("atb-sim",))
    assert found.cause == f"{name}='abc' is no number of {what}"


# --- Driver and devices -----------------------------------------------------------------------------------------------


def test_the_driver_is_found_where_its_installer_says_it_is(box: Box) -> None:
    (box.root / "driver").rename(box.base / "driver")
    write(box.base / "etc/ascend_install.info", f"UserName=HwHiAiUser\nDriver_Install_Path_Param={box.base}\n")
    assert box.finding("driver").message == f"25.0.rc1.1 in {box.base}/driver"


def test_an_installers_record_without_a_folder_is_passed_over(box: Box) -> None:
    write(box.base / "etc/ascend_install.info", b"\xffUserName=HwHiAiUser\nDriver_Install_Path_Param=\n")
    assert box.finding("driver").message == f"25.0.rc1.1 in {box.root}/driver"


@pytest.mark.parametrize("named", ["", "/driver"])
def test_a_variable_names_the_driver_or_the_folder_it_is_in(box: Box, named: str) -> None:
    (box.root / "driver").rename(box.base / "driver")
    box.environ["ASCEND_DRIVER_PATH"] = f"{box.base}{named}"
    assert box.finding("driver").message == f"25.0.rc1.1 in {box.base}/driver"


def test_a_driver_whose_folder_is_not_seen_blocks_nothing_where_its_devices_are(box: Box) -> None:
    (box.root / "driver").rename(box.base / "elsewhere")
    found = box.finding("driver")
    assert (found.level, found.blocks) == (Level.WARNING, ())


def test_a_variable_for_the_driver_that_leads_nowhere_is_an_error(box: Box) -> None:
    box.environ["ASCEND_DRIVER_PATH"] = "/nowhere"
    assert box.finding("driver").cause == "ASCEND_DRIVER_PATH=/nowhere is not a folder"


def test_a_driver_without_a_version_file_is_a_warning(box: Box) -> None:
    (box.root / "driver/version.info").unlink()
    assert box.finding("driver").cause == f"there is no {box.root}/driver/version.info"


def test_a_missing_driver_or_device_is_a_warning_where_the_rest_of_ascend_is(tmp_path: Path) -> None:
    box = Box(tmp_path)
    new_cann(box)
    assert box.levels()["driver"] is box.levels()["devices"] is Level.WARNING
    assert "--device" in (box.finding("devices").fix or "")


def test_devices_are_counted_in_their_order_and_the_choice_of_the_user_is_shown(box: Box) -> None:
    for number in (10, 2):
        write(box.base / f"dev/davinci{number}")
    box.environ["ASCEND_RT_VISIBLE_DEVICES"] = "2"
    ranks = "at most 1 rank of a group without a rank table"
    devices = "3 NPUs (davinci0, davinci2, davinci10)"
    assert box.finding("devices").message == f"{devices}, ASCEND_RT_VISIBLE_DEVICES=2: {ranks}"
    box.environ["ASCEND_RT_VISIBLE_DEVICES"] = "0,2"
    assert box.finding("devices").message.endswith("=0,2: at most 2 ranks of a group without a rank table")


def test_devices_that_the_user_may_not_open_are_an_error(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atb_ascend.software.os.access", lambda path, mode: False)
    found = box.finding("devices")
    assert (found.level, found.message) == (Level.ERROR, "1 NPU (davinci0)")
    assert "usermod" in (found.fix or "")


# --- Our own extensions -----------------------------------------------------------------------------------------------


def test_an_extension_that_is_not_built_says_how_to_build_it(box: Box) -> None:
    box.modules -= {"_atb", "_atb_sim"}
    found = box.finding("atb backend")
    assert (found.level, found.message) == (Level.WARNING, "not built")
    assert "--config-settings=cmake.define.ATB_CORE_WITH_ATB=ON" in (found.fix or "")
    assert box.finding("simulator").level is Level.ABSENT
    assert box.examine().usable() == ("cpu", "reference")
    assert box.examine().healthy


def test_an_extension_for_the_other_abi_than_atbs_is_an_error_and_is_not_loaded(box: Box) -> None:
    extension = write(box.base / "site/atb_core.so", b"\x7fELF\0_ZNSt13runtime_errorC2ERKSs\0")
    found = box.finding("atb backend")
    assert (found.level, found.blocks) == (Level.ERROR, ("atb",))
    assert found.cause == "atb_core._atb is built for C++ ABI 0, ATB_HOME_PATH names the library for 1"
    assert "atb_core._atb" not in box.loaded
    write(extension, b"\x7fELF\0_ZNSt13runtime_errorC2ERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE\0")
    assert box.finding("atb backend").level is Level.OK


@pytest.mark.parametrize("abi", [0, 1])
def test_the_abi_of_an_extension_is_read_from_what_a_compiler_writes(tmp_path: Path, abi: int) -> None:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    code = (
        "#include <stdexcept>\nstruct Error : std::runtime_error { using std::runtime_error::runtime_error; };\n"
        "void fail(const std::string& text) { throw Error(text); }\n"
    )
    library = tmp_path / "library.so"
    define = f"-D_GLIBCXX_USE_CXX11_ABI={abi}"
    command = [compiler, define, "-x", "c++", "-", "-O2", "-s", "-shared", "-fPIC", "-o", str(library)]
    subprocess.run(command, input=code, text=True, check=True)
    assert extension_abi(library) == abi


def test_the_abi_of_the_extension_that_is_built_here_can_be_told() -> None:
    file = module_file("atb_core._cpu")
    assert file is not None
    assert extension_abi(file) in (0, 1)


@pytest.mark.parametrize(
    ("module", "check", "backend"),
    [("_atb", "atb backend", "atb"), ("_atb_sim", "simulator", "atb-sim"), ("_cpu", "cpu engine", "cpu")],
)
def test_an_extension_that_does_not_load_is_an_error(box: Box, module: str, check: str, backend: str) -> None:
    package = "atb_sim" if module == "_atb_sim" else "atb_core"
    box.broken[f"{package}.{module}"] = "ImportError: undefined symbol: _ZN3atb13CreateContextE"
    found = box.finding(check)
    assert (found.level, found.cause) == (Level.ERROR, "ImportError: undefined symbol: _ZN3atb13CreateContextE")
    assert backend not in box.examine().usable()
    assert not box.examine().healthy


def test_without_the_cpu_engine_a_machine_is_not_healthy(box: Box) -> None:
    box.modules.remove("_cpu")
    assert box.finding("cpu engine").level is Level.ERROR
    assert not box.examine().healthy
