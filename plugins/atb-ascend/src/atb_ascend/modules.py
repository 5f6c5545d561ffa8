# SPDX-License-Identifier: Apache-2.0
"""Checks torch, torch_npu and the extension modules: present, loadable, of matching versions and C++ ABI."""

from __future__ import annotations

from pathlib import Path

from atb_ascend.findings import Finding, Level
from atb_ascend.installs import atb_folder_abi, find_atb, release
from atb_ascend.machine import Machine, blocking, tried
from atb_core.names import pip_install

HOW_TO_BUILD = (
    "Source the set_env.sh of CANN and of NNAL, then: "
    "pip install --force-reinstall --no-deps --no-binary atb-core "
    "--config-settings=cmake.define.ATB_CORE_WITH_ATB=ON atb-core "
    "(or pip install --config-settings=cmake.define.ATB_CORE_WITH_ATB=ON . in its sources)."
)
_SIMULATOR = "atb_sim._atb_sim"
_HOW_TO_SIMULATE = f"{pip_install('atb-sim')}."

# The errors of atb_core derive from std::runtime_error, whose constructor has the ABI of std::string in its name.
_EXTENSION_SYMBOLS = {0: b"_ZNSt13runtime_errorC2ERKSs", 1: b"_ZNSt13runtime_errorC2ERKNSt7__cxx1112basic_string"}
# The constructor of an exception takes a std::string: the ABI is in its mangled name.
_TORCH_SYMBOLS = {0: b"_ZN3c105ErrorC1ENS_14SourceLocationESs", 1: b"_ZN3c105ErrorC1ENS_14SourceLocationENSt7__cxx1112"}


def check_torch(machine: Machine) -> Finding:
    """Checks that torch is installed."""
    if version := machine.package_version("torch"):
        return Finding("torch", Level.OK, version)
    cause = "the reference engine computes with it, and torch_npu reaches a card through it"
    return Finding("torch", Level.ABSENT, "not installed", cause, "pip install torch", ("reference", "atb"))


def check_torch_npu(machine: Machine, importing: bool = False) -> Finding:
    """Checks that torch_npu is installed and fits torch; `importing` imports it in a child process, too."""
    finding = _torch_npu(machine.package_version("torch"), machine.package_version("torch_npu"))
    if finding.level is Level.OK and importing and (problem := machine.import_module("torch_npu")) is not None:
        fix = "Source the set_env.sh of CANN: it sets LD_LIBRARY_PATH. If its libraries are found and do not fit, "
        fix += "install the torch_npu that is made for this CANN."
        return blocking("torch_npu", f"{finding.message} does not import", problem, fix)
    return finding


def _torch_npu(torch: str | None, torch_npu: str | None) -> Finding:
    wanted = release(torch)
    install = f'pip install "torch_npu=={_pair(torch)}.*"' if torch and wanted else "pip install torch_npu"
    if torch_npu is None:
        cause = "it is not installed, and torch reaches an NPU through it: tensors on the card, and the current stream"
        return blocking("torch_npu", "not installed", cause, install, Level.WARNING)
    if torch is None:
        return blocking("torch_npu", torch_npu, "torch is not installed", None)
    if release(torch_npu) != wanted:
        cause = f"torch_npu {torch_npu} is built for torch {_pair(torch_npu)}.*, installed is torch {torch}"
        return blocking("torch_npu", torch_npu, cause, f'{install}, or pip install "torch=={_pair(torch_npu)}.*"')
    return Finding("torch_npu", Level.OK, torch_npu)


def _pair(version: str) -> str:
    return ".".join(map(str, release(version) or (version,)))


def torch_abi(machine: Machine) -> int | None:
    """Returns torch's `_GLIBCXX_USE_CXX11_ABI`, by symbols of its smallest library, or `None`."""
    init = machine.module_file("torch")
    return None if init is None else _abi_in(init.parent / "lib" / "libc10.so", _TORCH_SYMBOLS)


def check_cpu(machine: Machine) -> Finding:
    """Checks the CPU engine, which every machine should have."""
    fix = "Reinstall atb-core for this Python and platform."
    if machine.module_file("atb_core._cpu") is None:
        return Finding("cpu engine", Level.ERROR, "not built", "atb_core._cpu is missing", fix, ("cpu",))
    return tried("cpu engine", "atb_core._cpu", machine.import_module("atb_core._cpu"), fix, "cpu")


def check_backend(machine: Machine) -> Finding:
    """Checks the extension against the real ATB."""
    file = machine.module_file("atb_core._atb")
    if file is None:
        cause = "this installation of atb-core was built without ATB: atb_core._atb is missing"
        return blocking("atb backend", "not built", cause, HOW_TO_BUILD, Level.WARNING)
    built, install = extension_abi(file), find_atb(machine)
    atb = atb_folder_abi(install.path) if install else None
    if built is not None and atb is not None and built != atb:
        # It would load, and corrupt memory: the names of ATB's functions are the same.
        cause = f"atb_core._atb is built for C++ ABI {built}, ATB_HOME_PATH names the library for {atb}"
        fix = f"source .../nnal/atb/set_env.sh --cxx_abi={built}, or build it again. {HOW_TO_BUILD}"
        return blocking("atb backend", f"built for C++ ABI {built}", cause, fix)
    rebuild = f"If the libraries above load, build it again for them. {HOW_TO_BUILD}"
    return tried("atb backend", "atb_core._atb", machine.import_module("atb_core._atb"), rebuild)


def check_simulator(machine: Machine) -> Finding:
    """Checks the extension against the simulator, which the distribution atb-sim brings."""
    if machine.module_file(_SIMULATOR) is None:
        cause = f"the distribution atb-sim is not installed: {_SIMULATOR} is missing"
        return Finding("simulator", Level.ABSENT, "not installed", cause, _HOW_TO_SIMULATE, ("atb-sim",))
    problem = machine.import_module(_SIMULATOR)
    return tried("simulator", _SIMULATOR, problem, f"Reinstall atb-sim: {_HOW_TO_SIMULATE}", "atb-sim")


def extension_abi(extension: Path) -> int | None:
    """Returns the C++ ABI that an extension was built for; `None` if its symbols do not give it."""
    return _abi_in(extension, _EXTENSION_SYMBOLS)


def _abi_in(library: Path, symbols: dict[int, bytes]) -> int | None:
    try:
        content = library.read_bytes()
    except OSError:
        return None
    return next((abi for abi, symbol in symbols.items() if symbol in content), None)
