# SPDX-License-Identifier: Apache-2.0
"""CANN and ATB are found at their places, their versions are read, and mismatches are reported."""

from __future__ import annotations

from pathlib import Path

import pytest
from ascend_machines import Box, driver, good_box, new_cann, nnal, old_cann, torch_package, write

from atb_ascend import Level, missing_for_backend
from atb_ascend.installs import read_text, release


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return good_box(tmp_path)


# --- CANN -------------------------------------------------------------------------------------------------------------


def test_a_toolkit_that_no_variable_names_says_which_script_to_source(box: Box) -> None:
    box.environ = {"ATB_HOME_PATH": box.environ["ATB_HOME_PATH"], "ASCEND_HOME_PATH": ""}
    found = box.finding("cann")
    assert (found.level, found.fix) == (Level.WARNING, f"source {box.root}/cann/set_env.sh")
    assert found.blocks == ("atb",)


def test_an_old_toolkit_that_no_variable_names_is_found_too(tmp_path: Path) -> None:
    box = Box(tmp_path)
    old_cann(box)
    box.environ = {}
    assert box.finding("cann").fix == f"source {box.root}/ascend-toolkit/set_env.sh"
    (box.root / "ascend-toolkit/latest").unlink()
    assert box.finding("cann").message == f"8.2.RC1 in {box.root}/ascend-toolkit/8.2.RC1"


def test_a_toolkit_is_found_where_its_installer_says_it_is(box: Box) -> None:
    box.environ = {}
    elsewhere = box.base / "opt/Ascend"
    elsewhere.parent.mkdir()
    box.root.rename(elsewhere)
    write(box.base / "etc/Ascend/ascend_cann_install.info", f"Install_Path={elsewhere}\n")
    (elsewhere / "cann").unlink()
    assert box.finding("cann").message == f"8.5.0 in {elsewhere}/cann-8.5.0"


def test_without_its_script_the_way_to_set_the_environment_is_told_in_words(box: Box) -> None:
    box.environ = {}
    (box.root / "cann-8.5.0/set_env.sh").unlink()
    (box.root / "nnal/atb/set_env.sh").unlink()
    assert box.finding("cann").fix == "Install the CANN toolkit and source its set_env.sh."


def test_a_variable_that_leads_nowhere_is_an_error_that_names_it(box: Box) -> None:
    box.environ.update(ASCEND_HOME_PATH="", ASCEND_TOOLKIT_HOME="/nowhere")
    found = box.finding("cann")
    assert (found.level, found.cause) == (Level.ERROR, "ASCEND_TOOLKIT_HOME=/nowhere is not a folder")


def test_two_variables_with_different_toolkits_are_a_warning(box: Box) -> None:
    other = box.root / "cann-8.3.RC1"
    other.mkdir()
    box.environ["ASCEND_TOOLKIT_HOME"] = str(other)
    found = box.finding("cann variables")
    assert found.level is Level.WARNING
    assert str(other) in (found.cause or "")


def test_a_missing_acl_library_is_an_error(box: Box) -> None:
    home = Path(box.environ["ASCEND_HOME_PATH"])
    (home / "lib64/libascendcl.so").unlink()
    found = box.finding("cann")
    assert found.level is Level.ERROR
    assert f"{home}/lib64/libascendcl.so is missing" in (found.cause or "")
    write(home / "aarch64-linux/lib64/libascendcl.so")
    assert box.finding("cann").level is Level.OK


def test_an_acl_library_that_does_not_load_is_an_error(box: Box) -> None:
    box.broken["libascendcl.so"] = "OSError: libascend_hal.so: cannot open shared object file"
    assert box.finding("libascendcl").level is Level.ERROR
    assert not box.examine().healthy


def test_atb_makes_no_elementwise_operations_without_the_library_of_operations(box: Box) -> None:
    home = Path(box.environ["ASCEND_HOME_PATH"])
    (home / "lib64/libopapi.so").unlink()
    found = box.finding("libopapi")
    assert (found.level, found.blocks) == (Level.ERROR, ("atb",))
    assert f"{home}/lib64/libopapi.so is missing" in (found.cause or "")
    write(home / "aarch64-linux/lib64/libopapi.so")
    assert box.finding("libopapi").level is Level.OK
    box.broken["libopapi.so"] = "OSError: libnnopbase.so: cannot open shared object file"
    assert box.finding("libopapi").level is Level.ERROR


def test_missing_cann_and_nnal_are_warnings_where_a_card_is(tmp_path: Path) -> None:
    box = Box(tmp_path, modules={"_cpu"})
    driver(box)
    levels = box.levels()
    assert [levels[check] for check in ("cann", "atb", "atb backend")] == [Level.WARNING] * 3
    assert box.examine().healthy


# --- Version files ----------------------------------------------------------------------------------------------------


def test_a_damaged_version_file_of_atb_is_a_warning_and_the_folders_name_serves(box: Box) -> None:
    file = write(box.root / "nnal/atb/8.5.0/version.info", b"\xff\xfe\x00garbage \x1b[31m")
    found = box.finding("atb")
    assert found.level is Level.WARNING
    assert found.message.startswith("8.5.0 in ")
    assert found.cause == (
        f"{box.root}/nnal/atb/latest/{file.name} holds no version "
        "(looked for Ascend-cann-atb, Ascend-cann-atb Version, Version)"
    )


def test_bytes_that_are_no_utf_8_around_the_version_do_no_harm(box: Box) -> None:
    write(box.root / "nnal/atb/8.5.0/version.info", b"\xd0\xff\n  Ascend-cann-atb : 8.5.1\n branch : \xe9\n")
    assert box.finding("atb").message.startswith("8.5.1 in ")


def test_a_version_file_that_cannot_be_read_is_a_warning(box: Box) -> None:
    file = box.root / "driver/version.info"
    file.unlink()
    file.mkdir()
    found = box.finding("driver")
    assert (found.level, found.cause) == (Level.WARNING, f"{file} cannot be read: Is a directory")
    assert "driver" not in [finding.check for finding in missing_for_backend(box.machine())]


@pytest.mark.parametrize(
    "gone",
    [
        ["aarch64-linux/ascend_toolkit_install.info"],
        ["aarch64-linux/ascend_toolkit_install.info", "version.cfg"],
    ],
)
def test_any_of_the_version_files_of_an_old_toolkit_will_do(tmp_path: Path, gone: list[str]) -> None:
    box = Box(tmp_path)
    home = old_cann(box, "8.3.RC2")
    for name in gone:
        (home / name).unlink()
    assert box.finding("cann").message == f"8.3.RC2 in {home}"


def test_a_components_own_numbering_is_not_taken_for_the_release(tmp_path: Path) -> None:
    box = Box(tmp_path)
    home = old_cann(box)
    write(home / "version.cfg", "")
    (home / "aarch64-linux/ascend_toolkit_install.info").unlink()
    write(home / "compiler/version.info", "Version=7.7.0.1.231\n")
    assert box.finding("cann").message == f"unknown version in {home}"
    assert box.finding("cann").level is Level.WARNING
    nnal(box)
    assert "versions" not in box.levels()  # nothing to compare


def test_a_release_without_a_components_version_before_it_is_read(tmp_path: Path) -> None:
    box = Box(tmp_path)
    home = old_cann(box)
    (home / "aarch64-linux/ascend_toolkit_install.info").unlink()
    write(home / "version.cfg", "toolkit_running_version=[8.5.2]\n")
    assert box.finding("cann").message == f"8.5.2 in {home}"


def test_a_toolkit_since_8_5_tells_its_version_in_share_info_too(box: Box) -> None:
    home = Path(box.environ["ASCEND_HOME_PATH"])
    (home / "aarch64-linux/ascend_toolkit_install.info").unlink()
    assert box.finding("cann").message == f"8.5.0 in {home}"


def test_a_toolkit_without_version_files_is_a_warning(box: Box) -> None:
    home = Path(box.environ["ASCEND_HOME_PATH"])
    (home / "aarch64-linux/ascend_toolkit_install.info").unlink()
    (home / "share/info/runtime/version.info").unlink()
    found = box.finding("cann")
    assert (found.level, found.cause) == (Level.WARNING, "none of the files that hold its version is there")


def test_a_number_of_thousands_of_digits_is_no_version(box: Box) -> None:
    write(box.root / "driver/version.info", f"Version={'9' * 5000}.1\n")
    assert box.finding("driver").message.startswith("unknown version in ")


def test_an_atb_whose_folder_has_no_version_either_is_a_warning(box: Box) -> None:
    (box.root / "nnal/atb/8.5.0").rename(box.root / "nnal/atb/latest-built")
    (box.root / "nnal/atb/latest-built/version.info").unlink()
    (box.root / "nnal/atb/latest").unlink()
    box.environ["ATB_HOME_PATH"] = str(box.root / "nnal/atb/latest-built/atb/cxx_abi_1")
    found = box.finding("atb")
    assert (found.level, found.cause) == (Level.WARNING, "none of the files that hold its version is there")
    assert "versions" not in box.levels()


def test_of_a_huge_file_only_the_beginning_is_read(tmp_path: Path) -> None:
    assert len(read_text(write(tmp_path / "huge", b"x" * (3 << 20)))) == 1 << 20


def test_major_and_minor_are_what_versions_are_compared_by() -> None:
    assert [release(text) for text in ("8.10.RC1", "8.0.T63", "2.9.0+cpu", "x", "", None)] == [
        (8, 10), (8, 0), (2, 9), None, None, None,
    ]  # fmt: skip


# --- ATB --------------------------------------------------------------------------------------------------------------


def test_nnal_without_atb_home_path_says_which_script_to_source(box: Box) -> None:
    del box.environ["ATB_HOME_PATH"]
    found = box.finding("atb")
    assert (found.level, found.blocks) == (Level.WARNING, ("atb",))
    assert found.message == f"8.5.0 in {box.root}/nnal/atb/latest"
    assert found.fix == f"source {box.root}/nnal/atb/set_env.sh"
    assert "libatb" not in box.levels()


def test_nnal_is_found_without_its_link_too_and_the_newest_is_taken(box: Box) -> None:
    del box.environ["ATB_HOME_PATH"]
    (box.root / "nnal/atb/latest").unlink()
    write(box.root / "nnal/atb/8.10.0/version.info", "Ascend-cann-atb : 8.10.0\n")
    assert box.finding("atb").message.startswith("8.10.0 in ")


def test_nnal_is_found_in_the_users_home(box: Box) -> None:
    del box.environ["ATB_HOME_PATH"]
    (box.base / "home").mkdir()
    box.root.rename(box.base / "home/Ascend")
    (box.base / "home/Ascend/nnal/atb/latest").unlink()
    assert box.finding("atb").message == f"8.5.0 in {box.base}/home/Ascend/nnal/atb/8.5.0"


def test_an_atb_home_path_that_leads_nowhere_is_an_error(box: Box) -> None:
    box.environ["ATB_HOME_PATH"] = "/nowhere"
    found = box.finding("atb")
    assert (found.level, found.cause) == (Level.ERROR, "ATB_HOME_PATH=/nowhere is not a folder")


def test_an_atb_home_path_above_the_abi_folders_is_an_error(box: Box) -> None:
    box.environ["ATB_HOME_PATH"] = str(box.root / "nnal/atb/latest")
    found = box.finding("atb")
    assert found.level is Level.ERROR
    assert "must name the folder of one C++ ABI" in (found.cause or "")


def test_a_missing_libatb_is_an_error(box: Box) -> None:
    library = Path(box.environ["ATB_HOME_PATH"]) / "lib/libatb.so"
    library.unlink()
    found = box.finding("atb")
    assert (found.level, found.cause) == (Level.ERROR, f"{library} is missing: the installation is incomplete")


def test_a_libatb_that_does_not_load_is_reported_in_the_loaders_words(box: Box) -> None:
    box.broken["libatb.so"] = "OSError: libasdops.so: cannot open shared object file: No such file or directory"
    found = box.finding("libatb")
    assert (found.level, found.cause) == (Level.ERROR, box.broken["libatb.so"])
    assert found.fix == f"source {box.root}/nnal/atb/set_env.sh"


def test_an_atb_older_than_8_2_is_refused(tmp_path: Path) -> None:
    box = Box(tmp_path)
    torch_package(box)
    old_cann(box, "8.0.RC3")
    nnal(box, "8.0.RC3")
    assert box.finding("atb version").level is Level.ERROR
    assert box.finding("atb version").cause == "ATB 8.0.RC3 is older than 8.2, the oldest that the backend works with"


def test_atb_8_5_with_cann_8_2_is_an_error(tmp_path: Path) -> None:
    box = Box(tmp_path)
    torch_package(box)
    old_cann(box, "8.2.RC1")
    nnal(box, "8.5.0")
    found = box.finding("versions")
    assert (found.level, found.message) == (Level.ERROR, "ATB 8.5.0 with CANN 8.2.RC1")
    assert found.blocks == ("atb",)


def test_another_difference_of_versions_is_a_warning_only(tmp_path: Path) -> None:
    box = Box(tmp_path)
    torch_package(box)
    driver(box)
    new_cann(box, "9.0.0-beta.2")
    nnal(box, "8.5.0")
    assert box.finding("versions").level is Level.WARNING
    assert missing_for_backend(box.machine()) == []


# --- The C++ ABI ------------------------------------------------------------------------------------------------------


def test_the_folder_of_the_other_abi_is_an_error_with_the_command_that_sets_it_right(box: Box) -> None:
    torch_package(box, abi=0)
    found = box.finding("abi")
    assert (found.level, found.message) == (Level.ERROR, "ATB cxx_abi_1, torch 0")
    assert found.fix == f"source {box.root}/nnal/atb/set_env.sh --cxx_abi=0"


def test_a_torch_whose_files_do_not_give_its_abi_is_a_warning_with_the_way_to_ask_it(box: Box) -> None:
    write(box.base / "site/torch/lib/libc10.so", b"stripped")
    found = box.finding("abi")
    assert (found.level, found.message) == (Level.WARNING, "ATB cxx_abi_1, torch unknown")
    assert "torch.compiled_with_cxx11_abi()" in (found.fix or "")


def test_a_folder_that_is_a_link_to_one_of_an_abi_counts_as_it(box: Box) -> None:
    link = box.base / "atb"
    link.symlink_to(box.environ["ATB_HOME_PATH"])
    box.environ["ATB_HOME_PATH"] = str(link)
    assert box.finding("abi").level is Level.OK
