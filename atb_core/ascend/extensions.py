# SPDX-License-Identifier: Apache-2.0
"""Which of our own extension modules are built and can be loaded."""

from __future__ import annotations

from pathlib import Path

from atb_core.ascend.installs import atb_folder_abi, find_atb
from atb_core.ascend.machine import Machine
from atb_core.findings import Finding, Level

HOW_TO_BUILD = (
    "Source the set_env.sh of CANN and of NNAL, then: "
    "pip install --force-reinstall --no-deps --no-binary atb-core "
    "--config-settings=cmake.define.ATB_CORE_WITH_ATB=ON atb-core "
    "(or pip install --config-settings=cmake.define.ATB_CORE_WITH_ATB=ON . in its sources)."
)
_SIMULATOR = "atb_sim._atb_sim"
_HOW_TO_SIMULATE = "pip install atb-sim (in a clone of the repository: pip install ./plugins/atb-sim)."
_REINSTALL = "Reinstall atb-core for this Python and platform."
_REBUILD = f"If the libraries above load, build it again for them. {HOW_TO_BUILD}"

# Our errors derive from std::runtime_error, whose constructor takes a std::string: the ABI is in its mangled name.
_SYMBOLS = {0: b"_ZNSt13runtime_errorC2ERKSs", 1: b"_ZNSt13runtime_errorC2ERKNSt7__cxx1112basic_string"}


def check_cpu(machine: Machine) -> Finding:
    """The CPU engine, which every machine should have."""
    if machine.module_file("atb_core._cpu") is None:
        return Finding("cpu engine", Level.ERROR, "not built", "atb_core._cpu is missing", _REINSTALL, ("cpu",))
    return _loadable(machine, "cpu engine", "atb_core._cpu", "cpu", _REINSTALL)


def check_backend(machine: Machine, ascend: bool) -> Finding:
    """The extension against the real ATB. `ascend`: whether Ascend's software is here, so that it is missed."""
    file = machine.module_file("atb_core._atb")
    if file is None:
        level = Level.WARNING if ascend else Level.ABSENT
        cause = "this installation of atb-core was built without ATB: atb_core._atb is missing"
        return Finding("atb backend", level, "not built", cause, HOW_TO_BUILD, ("atb",))
    built, install = extension_abi(file), find_atb(machine)
    atb = atb_folder_abi(install.path) if install else None
    if built is not None and atb is not None and built != atb:
        # It would load, and corrupt memory: the names of ATB's functions are the same.
        cause = f"atb_core._atb is built for C++ ABI {built}, ATB_HOME_PATH names the library for {atb}"
        fix = f"source .../nnal/atb/set_env.sh --cxx_abi={built}, or build it again. {HOW_TO_BUILD}"
        return Finding("atb backend", Level.ERROR, f"built for C++ ABI {built}", cause, fix, ("atb",))
    return _loadable(machine, "atb backend", "atb_core._atb", "atb", _REBUILD)


def extension_abi(extension: Path) -> int | None:
    """The C++ ABI that an extension of ours was built for; None if that cannot be told."""
    try:
        symbols = extension.read_bytes()
    except OSError:
        return None
    return next((abi for abi, symbol in _SYMBOLS.items() if symbol in symbols), None)


def check_simulator(machine: Machine) -> Finding:
    """Checks the extension against the simulator, which the distribution atb-sim brings."""
    if machine.module_file(_SIMULATOR) is None:
        cause = f"the distribution atb-sim is not installed: {_SIMULATOR} is missing"
        return Finding("simulator", Level.ABSENT, "not installed", cause, _HOW_TO_SIMULATE, ("atb-sim",))
    return _loadable(machine, "simulator", _SIMULATOR, "atb-sim", f"Reinstall atb-sim: {_HOW_TO_SIMULATE}")


def _loadable(machine: Machine, check: str, module: str, backend: str, fix: str) -> Finding:
    problem = machine.import_module(module)
    if problem is None:
        return Finding(check, Level.OK, f"{module} loads")
    return Finding(check, Level.ERROR, f"{module} does not load", problem, fix, (backend,))
