# SPDX-License-Identifier: Apache-2.0
"""torch and torch_npu: versions from their metadata, torch's C++ ABI from its files."""

from __future__ import annotations

from collections.abc import Iterator

from atb_core.ascend.machine import Machine
from atb_core.ascend.versions import read_text, release
from atb_core.findings import Finding, Level

# The constructor of an exception takes a std::string: the ABI is in its mangled name.
_SYMBOLS = {0: b"_ZN3c105ErrorC1ENS_14SourceLocationESs", 1: b"_ZN3c105ErrorC1ENS_14SourceLocationENSt7__cxx1112"}
_IMPORT_FIX = (
    "Source the set_env.sh of CANN: it sets LD_LIBRARY_PATH. If its libraries are found and do not fit, install the "
    "torch_npu that is made for this CANN."
)
_ABI_FLAG = "_GLIBCXX_USE_CXX11_ABI="


def check_packages(machine: Machine, ascend: bool, importing: bool = False) -> Iterator[Finding]:
    """torch, torch_npu and whether they belong together.

    Args:
        ascend: whether anything of Ascend is on this machine, so that a missing torch_npu deserves a warning.
        importing: whether torch_npu is imported, in a process of its own.
    """
    torch, torch_npu = machine.package_version("torch"), machine.package_version("torch_npu")
    if torch is None:
        yield Finding(
            "torch", Level.ERROR, "not installed", "every backend takes and gives tensors of torch",
            "pip install torch", ("cpu", "reference", "atb", "atb-sim"),
        )  # fmt: skip
    else:
        yield Finding("torch", Level.OK, torch)
    found = _torch_npu(torch, torch_npu, ascend)
    if found.level is Level.OK and importing and (problem := machine.import_module("torch_npu")) is not None:
        found = Finding("torch_npu", Level.ERROR, f"{found.message} does not import", problem, _IMPORT_FIX, ("atb",))
    yield found


def _torch_npu(torch: str | None, torch_npu: str | None, ascend: bool) -> Finding:
    wanted = release(torch)
    install = f'pip install "torch_npu=={_pair(torch)}.*"' if torch and wanted else "pip install torch_npu"
    if torch_npu is None:
        cause = "it is not installed, and torch reaches an NPU through it: tensors on the card, and the current stream"
        level = Level.WARNING if ascend else Level.ABSENT
        return Finding("torch_npu", level, "not installed", cause, install, ("atb",))
    if torch is None:
        return Finding("torch_npu", Level.ERROR, torch_npu, "torch is not installed", None, ("atb",))
    if release(torch_npu) != wanted:
        cause = f"torch_npu {torch_npu} is built for torch {_pair(torch_npu)}.*, installed is torch {torch}"
        fix = f'{install}, or pip install "torch=={_pair(torch_npu)}.*"'
        return Finding("torch_npu", Level.ERROR, torch_npu, cause, fix, ("atb",))
    return Finding("torch_npu", Level.OK, torch_npu)


def _pair(version: str) -> str:
    return ".".join(map(str, release(version) or (version,)))


def torch_abi(machine: Machine) -> int | None:
    """The value of `_GLIBCXX_USE_CXX11_ABI` that torch was built with; None if there is no telling.

    Read from the symbols of its smallest library, else from its CMake file, else by importing torch.
    """
    init = machine.module_file("torch")
    if init is None:
        return None
    try:
        symbols = (init.parent / "lib" / "libc10.so").read_bytes()
    except OSError:
        symbols = b""
    for abi, symbol in _SYMBOLS.items():
        if symbol in symbols:
            return abi
    try:
        _, flag, after = read_text(init.parent / "share/cmake/Torch/TorchConfig.cmake").partition(_ABI_FLAG)
    except OSError:
        flag = after = ""
    if flag and after[:1] in ("0", "1"):
        return int(after[0])
    return machine.torch_abi()
