# SPDX-License-Identifier: Apache-2.0
"""Checks driver, devices, CANN and ATB: installed, complete, loadable, made for each other and for torch."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from atb_ascend import installs
from atb_ascend.findings import Finding, Level
from atb_ascend.installs import release
from atb_ascend.machine import Machine, blocking, tried
from atb_ascend.modules import torch_abi

ATB_FLOOR = (8, 2)
# From here on CANN's folders are laid out differently, and ATB looks for them there.
LAYOUT_CHANGE = (8, 5)
ACL_NAMES = ("lib64/libascendcl.so", "*-linux/lib64/libascendcl.so")
OPERATION_NAMES = ("lib64/libopapi.so", "*-linux/lib64/libopapi.so", "opp/lib64/libopapi.so")
_CANN_FIX = "Install the CANN toolkit and source its set_env.sh."
_NNAL_FIX = "Install the NNAL package of the same version as CANN and source .../nnal/atb/set_env.sh."
_DRIVER_FIX = "Install driver and firmware of the NPU; in a container, mount the host's /usr/local/Ascend/driver."
_GROUP_FIX = 'Add the user to the group that owns the devices: sudo usermod -aG HwHiAiUser "$USER", then log in again.'


def check_driver(machine: Machine) -> Finding:
    """Checks the driver's folder and version."""
    install = installs.find_driver(machine)
    if install is None:
        # With devices the driver is at work, and only its folder is elsewhere or not in this container.
        blocks = () if _davinci(machine.dev) else ("atb",)
        return Finding("driver", Level.WARNING, "not found", f"no {machine.root}/driver", _DRIVER_FIX, blocks)
    if not os.path.isdir(install.path):
        cause = f"{install.variable}={install.path} is not a folder"
        return blocking("driver", "not found", cause, f"Correct {install.variable} or unset it.")
    version, problems = installs.read_version([(install.path / "version.info", ("package_version", "Version"))])
    message = f"{version or 'unknown version'} in {install.path}"
    if version is None:
        cause = "; ".join(problems) or f"there is no {install.path}/version.info"
        return Finding("driver", Level.WARNING, message, cause, "Compare with what npu-smi info prints.")
    return Finding("driver", Level.OK, message)


def check_devices(machine: Machine) -> Finding:
    """Checks for NPUs that this process can open."""
    devices = _davinci(machine.dev)
    if not devices:
        fix = "npu-smi info shows what the driver sees; a container needs --device /dev/davinci0 and its companions."
        return blocking("devices", "no NPU", f"there is no {machine.dev}/davinci0 or the like", fix, Level.WARNING)
    message = f"{len(devices)} NPU{'s' if len(devices) > 1 else ''} ({', '.join(path.name for path in devices)})"
    visible = machine.variable("ASCEND_RT_VISIBLE_DEVICES")
    if visible:
        count = len(visible.split(","))
        message += f", ASCEND_RT_VISIBLE_DEVICES={visible}: at most {count} rank{'s' if count > 1 else ''} of a group"
        message += " without a rank table"
    if not any(os.access(path, os.R_OK | os.W_OK) for path in devices):
        return blocking("devices", message, f"this user may not open {devices[0]}", _GROUP_FIX)
    return Finding("devices", Level.OK, message)


def check_toolkit(machine: Machine) -> Iterator[Finding]:
    """Checks the toolkit's folder, version and ACL library."""
    install = installs.find_toolkit(machine)
    if install is None or not os.path.isdir(install.path):
        yield _not_found("cann", install, "neither ASCEND_HOME_PATH nor ASCEND_TOOLKIT_HOME is set", _CANN_FIX)
        return
    version, problems = installs.toolkit_version(install.path)
    message = f"{version or 'unknown version'} in {install.path}"
    library = installs.library(install.path, *ACL_NAMES)
    if library is None:
        cause = f"{install.path}/lib64/libascendcl.so is missing: the installation is incomplete or of another package"
        yield blocking("cann", message, cause, "Install the CANN toolkit (or its runtime) again.")
    elif install.variable is None:
        cause = "it is installed, but ASCEND_HOME_PATH is not set"
        yield blocking("cann", message, cause, _source(install.path, _CANN_FIX), Level.WARNING)
    else:
        yield _version_finding("cann", message, version, problems)
        # The two variables mean the same thing, and tools differ in which one they read.
        other = machine.variable(installs.TOOLKIT_VARIABLES[1])
        if other and os.path.realpath(other) != os.path.realpath(install.path):
            cause = f"ASCEND_TOOLKIT_HOME names another installation, {other}; ASCEND_HOME_PATH is used"
            fix = "Source the set_env.sh of one toolkit only, in a new shell."
            yield Finding("cann variables", Level.WARNING, f"ASCEND_HOME_PATH={install.path}", cause, fix)
        yield _loads(machine, "libascendcl", library, install.path)
        yield _operations(machine, install.path)


def _operations(machine: Machine, home: Path) -> Finding:
    """Checks the library of operations, to which ATB hands elementwise ones."""
    library = installs.library(home, *OPERATION_NAMES)
    if library is not None:
        return _loads(machine, "libopapi", library, home)
    cause = f"{home}/lib64/libopapi.so is missing, and ATB makes no elementwise operation without it"
    return blocking("libopapi", "not found", cause, "Install the operators (kernels) package of this CANN version.")


def check_atb(machine: Machine) -> Iterator[Finding]:
    """Checks ATB's folder, version, library and C++ ABI."""
    install = installs.find_atb(machine)
    if install is None or not os.path.isdir(install.path):
        yield _not_found("atb", install, "ATB_HOME_PATH is not set", _NNAL_FIX)
        return
    version, problems = installs.atb_version(install.path)
    message = f"{version or 'unknown version'} in {install.path}"
    library = installs.library(install.path, "lib/libatb.so")
    if install.variable is None:
        cause = "it is installed, but ATB_HOME_PATH is not set"
        yield blocking("atb", message, cause, _source(install.path, _NNAL_FIX), Level.WARNING)
    elif (abi := installs.atb_folder_abi(install.path)) is None:
        cause = f"ATB_HOME_PATH={install.path} must name the folder of one C++ ABI, .../nnal/atb/latest/atb/cxx_abi_1"
        yield blocking("atb", message, cause, _source(install.path, _NNAL_FIX))
    elif library is None:
        cause = f"{install.path}/lib/libatb.so is missing: the installation is incomplete"
        yield blocking("atb", message, cause, "Install the NNAL package again.")
    else:
        yield _version_finding("atb", message, version, problems)
        yield _check_abi(machine, install.path, abi)
        yield _loads(machine, "libatb", library, install.path)
    yield from _check_versions(machine, version)


def _not_found(check: str, install: installs.Install | None, unset: str, fix: str) -> Finding:
    if install is None:
        return blocking(check, "not found", f"{unset}, and nothing is at the usual places", fix, Level.WARNING)
    return blocking(check, "not found", f"{install.variable}={install.path} is not a folder", fix)


def _check_versions(machine: Machine, atb_version: str | None) -> Iterator[Finding]:
    """Checks that the backend supports ATB's version, and that CANN has the one that ATB needs."""
    atb = release(atb_version)
    if atb is not None and atb < ATB_FLOOR:
        cause = f"ATB {atb_version} is older than 8.2, the oldest that the backend works with"
        yield blocking("atb version", f"ATB {atb_version}", cause, _NNAL_FIX)
    install = installs.find_toolkit(machine)
    version = installs.toolkit_version(install.path)[0] if install else None
    cann = release(version)
    if atb is None or cann is None:
        return
    message = f"ATB {atb_version} with CANN {version}"
    if atb >= LAYOUT_CHANGE > cann:
        cause = f"ATB {atb_version} needs CANN 8.5 or newer, whose folders are laid out differently"
        yield blocking("versions", message, cause, "Install CANN and NNAL of one version, and source both set_env.sh.")
    elif atb != cann:
        cause = "NNAL is meant to be installed on the CANN toolkit of the same version"
        yield Finding("versions", Level.WARNING, message, cause, "Install CANN and NNAL of one version.")
    else:
        yield Finding("versions", Level.OK, message)


def _check_abi(machine: Machine, path: Path, abi: int) -> Finding:
    torch = torch_abi(machine)
    message = f"ATB cxx_abi_{abi}, torch {'unknown' if torch is None else torch}"
    if torch is None:
        fix = 'python -c "import torch; print(torch.compiled_with_cxx11_abi())" must agree with ATB_HOME_PATH.'
        return Finding("abi", Level.WARNING, message, "torch's files do not give the C++ ABI it was built with", fix)
    if torch != abi:
        cause = f"torch was built with _GLIBCXX_USE_CXX11_ABI={torch}, ATB_HOME_PATH names the library for {abi}"
        script = installs.set_env(path) or ".../nnal/atb/set_env.sh"
        return blocking("abi", message, cause, f"source {script} --cxx_abi={torch}")
    return Finding("abi", Level.OK, message)


def _version_finding(check: str, message: str, version: str | None, problems: list[str]) -> Finding:
    """Returns a warning if the version files are damaged."""
    if version is None or problems:
        cause = "; ".join(problems) or "none of the files that hold its version is there"
        return Finding(check, Level.WARNING, message, cause, "If it does not work, install it again.")
    return Finding(check, Level.OK, message)


def _loads(machine: Machine, check: str, library: Path, home: Path) -> Finding:
    fix = _source(home, "Source the set_env.sh of CANN and of NNAL: they set LD_LIBRARY_PATH.")
    return tried(check, str(library), machine.load_library(library), fix)


def _source(path: Path, otherwise: str) -> str:
    script = installs.set_env(path)
    return f"source {script}" if script else otherwise


def _davinci(dev: Path) -> list[Path]:
    """Returns /dev/davinci0, ...; not /dev/davinci_manager."""
    try:
        names = os.listdir(dev)
    except OSError:
        return []
    numbers = sorted(int(match[1]) for name in names if (match := re.fullmatch(r"davinci(\d+)", name)))
    return [dev / f"davinci{number}" for number in numbers]
