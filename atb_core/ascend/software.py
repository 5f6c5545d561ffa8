# SPDX-License-Identifier: Apache-2.0
"""The CANN toolkit and ATB: found, complete, loadable, and made for each other and for torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from atb_core.ascend import installs
from atb_core.ascend.machine import Machine
from atb_core.ascend.packages import torch_abi
from atb_core.ascend.versions import Read, release
from atb_core.findings import Finding, Level

ATB_FLOOR = (8, 2)
# From here on CANN's folders are laid out differently, and ATB looks for them there.
LAYOUT_CHANGE = (8, 5)
ACL_NAMES = ("lib64/libascendcl.so", "*-linux/lib64/libascendcl.so")
_CANN_FIX = "Install the CANN toolkit and source its set_env.sh."
_NNAL_FIX = "Install the NNAL package of the same version as CANN and source .../nnal/atb/set_env.sh."


def check_toolkit(machine: Machine, ascend: bool) -> Iterator[Finding]:
    """The toolkit's folder, version and ACL library. `ascend`: whether it is missed if it is not here."""
    install = installs.find_toolkit(machine)
    if install is None:
        level = Level.WARNING if ascend else Level.ABSENT
        cause = "neither ASCEND_HOME_PATH nor ASCEND_TOOLKIT_HOME is set, and nothing is at the usual places"
        yield Finding("cann", level, "not found", cause, _CANN_FIX, ("atb",))
        return
    if not os.path.isdir(install.path):
        cause = f"{install.variable}={install.path} is not a folder"
        yield Finding("cann", Level.ERROR, "not found", cause, _CANN_FIX, ("atb",))
        return
    read = installs.toolkit_version(install.path)
    found = f"{read.version or 'unknown version'} in {install.path}"
    library = installs.library(install.path, *ACL_NAMES)
    if library is None:
        cause = f"{install.path}/lib64/libascendcl.so is missing: the installation is incomplete or of another package"
        yield Finding("cann", Level.ERROR, found, cause, "Install the CANN toolkit (or its runtime) again.", ("atb",))
        return
    if install.variable is None:
        cause = "it is installed, but ASCEND_HOME_PATH is not set"
        yield Finding("cann", Level.WARNING, found, cause, _source(install.path, _CANN_FIX), ("atb",))
        return
    yield _version_finding("cann", found, read)
    yield from _second_toolkit(machine, install)
    yield _loads(machine, "libascendcl", library, install.path)


def check_atb(machine: Machine, ascend: bool) -> Iterator[Finding]:
    """ATB's folder, version, library and C++ ABI. `ascend`: whether it is missed if it is not here."""
    install = installs.find_atb(machine)
    if install is None:
        level = Level.WARNING if ascend else Level.ABSENT
        cause = "ATB_HOME_PATH is not set, and nothing is at the usual places"
        yield Finding("atb", level, "not found", cause, _NNAL_FIX, ("atb",))
        return
    if not os.path.isdir(install.path):
        cause = f"ATB_HOME_PATH={install.path} is not a folder"
        yield Finding("atb", Level.ERROR, "not found", cause, _NNAL_FIX, ("atb",))
        return
    read = installs.atb_version(install.path)
    found = f"{read.version or 'unknown version'} in {install.path}"
    if install.variable is None:
        cause = "it is installed, but ATB_HOME_PATH is not set"
        yield Finding("atb", Level.WARNING, found, cause, _source(install.path, _NNAL_FIX), ("atb",))
    elif (abi := installs.atb_folder_abi(install.path)) is None:
        cause = f"ATB_HOME_PATH={install.path} must name the folder of one C++ ABI, .../nnal/atb/latest/atb/cxx_abi_1"
        yield Finding("atb", Level.ERROR, found, cause, _source(install.path, _NNAL_FIX), ("atb",))
    else:
        yield from _atb_in_use(machine, install.path, abi, found, read)
    yield from _check_versions(machine, read.version)


def _atb_in_use(machine: Machine, path: Path, abi: int, found: str, read: Read) -> Iterator[Finding]:
    library = installs.library(path, "lib/libatb.so")
    if library is None:
        cause = f"{path}/lib/libatb.so is missing: the installation is incomplete"
        yield Finding("atb", Level.ERROR, found, cause, "Install the NNAL package again.", ("atb",))
        return
    yield _version_finding("atb", found, read)
    yield _check_abi(machine, path, abi)
    yield _loads(machine, "libatb", library, path)


def _check_versions(machine: Machine, atb_version: str | None) -> Iterator[Finding]:
    """Whether ATB is one that we know, and CANN the one it needs."""
    atb = release(atb_version)
    if atb is not None and atb < ATB_FLOOR:
        cause = f"ATB {atb_version} is older than 8.2, the oldest that the backend works with"
        yield Finding("atb version", Level.ERROR, f"ATB {atb_version}", cause, _NNAL_FIX, ("atb",))
    install = installs.find_toolkit(machine)
    version = installs.toolkit_version(install.path).version if install else None
    cann = release(version)
    if atb is None or cann is None:
        return
    found = f"ATB {atb_version} with CANN {version}"
    if atb >= LAYOUT_CHANGE > cann:
        cause = f"ATB {atb_version} needs CANN 8.5 or newer, whose folders are laid out differently"
        fix = "Install CANN and NNAL of one version, and source both set_env.sh."
        yield Finding("versions", Level.ERROR, found, cause, fix, ("atb",))
    elif atb != cann:
        cause = "NNAL is meant to be installed on the CANN toolkit of the same version"
        yield Finding("versions", Level.WARNING, found, cause, "Install CANN and NNAL of one version.")
    else:
        yield Finding("versions", Level.OK, found)


def _check_abi(machine: Machine, path: Path, abi: int) -> Finding:
    torch = torch_abi(machine)
    found = f"ATB cxx_abi_{abi}, torch {'unknown' if torch is None else torch}"
    if torch is None:
        cause = "which C++ ABI torch was built with cannot be told"
        fix = 'python -c "import torch; print(torch.compiled_with_cxx11_abi())" must agree with ATB_HOME_PATH.'
        return Finding("abi", Level.WARNING, found, cause, fix)
    if torch != abi:
        cause = f"torch was built with _GLIBCXX_USE_CXX11_ABI={torch}, ATB_HOME_PATH names the library for {abi}"
        script = installs.set_env(path, levels=4) or ".../nnal/atb/set_env.sh"
        return Finding("abi", Level.ERROR, found, cause, f"source {script} --cxx_abi={torch}", ("atb",))
    return Finding("abi", Level.OK, found)


def _second_toolkit(machine: Machine, install: installs.Install) -> Iterator[Finding]:
    """The two variables mean the same thing, and tools differ in which one they read."""
    other = machine.variable(installs.TOOLKIT_VARIABLES[1])
    if other and os.path.realpath(other) != os.path.realpath(install.path):
        cause = f"ASCEND_TOOLKIT_HOME names another installation, {other}; ASCEND_HOME_PATH is used"
        fix = "Source the set_env.sh of one toolkit only, in a new shell."
        yield Finding("cann variables", Level.WARNING, f"ASCEND_HOME_PATH={install.path}", cause, fix)


def _version_finding(check: str, found: str, read: Read) -> Finding:
    """Fine, unless its version files are damaged."""
    if read.version is None or read.problems:
        cause = "; ".join(read.problems) or "none of the files that hold its version is there"
        return Finding(check, Level.WARNING, found, cause, "If it does not work, install it again.")
    return Finding(check, Level.OK, found)


def _loads(machine: Machine, check: str, library: Path, home: Path) -> Finding:
    problem = machine.load_library(library)
    if problem is None:
        return Finding(check, Level.OK, f"{library} loads")
    fix = _source(home, "Source the set_env.sh of CANN and of NNAL: they set LD_LIBRARY_PATH.")
    return Finding(check, Level.ERROR, f"{library} does not load", problem, fix, ("atb",))


def _source(path: Path, otherwise: str) -> str:
    script = installs.set_env(path, levels=4)
    return f"source {script}" if script else otherwise
