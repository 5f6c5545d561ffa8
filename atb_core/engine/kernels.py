# SPDX-License-Identifier: Apache-2.0
"""Kernels of plugins' custom ops for the cpu engine, written against the C header in `get_include()`."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeAlias

from atb_core.engine.extension import load_extension
from atb_core.engine.kernel_abi import MAGIC, Kernel, KernelCall, KernelFunction
from atb_core.errors import EngineError, PluginError
from atb_core.graph.custom_ops import CustomKernel
from atb_core.graph.op import Op, registered_ops

__all__ = ["CpuKernel", "register_cpu_kernel"]

#: `check` or `run` in Python; it raises an exception where a C function returns an error.
PythonFunction: TypeAlias = Callable[[KernelCall], object]

_PAGE = "docs/custom-kernels.md"


class _Functions(NamedTuple):
    """Addresses of functions (0: none), their ABI version (`None`: this engine's), and objects to keep alive."""

    abi_version: int | None
    run: int
    check: int
    keep: tuple[Any, ...] = ()


@dataclass(frozen=True)
class CpuKernel(CustomKernel):
    """Kernel of one op for the cpu engine: `symbol` of a shared library, loaded by `register_cpu_kernel`.

    Args:
        library: file of the shared library.
        symbol: name of the kernel in ATB_KERNEL.
    """

    library: str | os.PathLike[str] | None = None
    symbol: str | None = None
    _functions: _Functions | None = field(default=None, repr=False)
    backend: ClassVar[str] = "cpu"

    def __post_init__(self) -> None:
        if (self.library is not None and bool(self.symbol)) == (self._functions is not None):
            raise PluginError(
                "a CpuKernel needs the file of a library and a symbol in it",
                hint='Write CpuKernel(library=Path(__file__).with_name("kernels.so"), symbol="my_kernel").',
            )

    @classmethod
    def from_address(cls, run: int, check: int = 0, *, abi_version: int | None = None) -> CpuKernel:
        """Returns a kernel of functions `int32_t (atb_call *)` in memory, e.g. of numba's `cfunc`.

        Args:
            run: address of the function that computes; the code must stay there until the process ends.
            check: address of the function that accepts or refuses a call; 0 accepts all that the shape rule does.
            abi_version: version of the ABI that the functions are written for, by default this engine's.
        """
        return cls(_functions=_Functions(abi_version, run, check))

    @classmethod
    def from_python(cls, run: PythonFunction, check: PythonFunction | None = None) -> CpuKernel:
        """Returns a slow kernel in Python, for experiments; its exceptions become EngineErrors."""
        functions = [KernelFunction(_guarded(f)) if f else None for f in (run, check)]
        addresses = [ctypes.cast(f, ctypes.c_void_p).value or 0 if f else 0 for f in functions]
        return cls(_functions=_Functions(None, addresses[0], addresses[1], (run, check, *functions)))

    def load(self) -> _Functions:
        """Returns the functions' addresses.

        Raises:
            PluginError: library or symbol is missing, or has another ABI version.
        """
        if self._functions is not None:
            return self._functions
        assert self.library is not None and self.symbol is not None
        path, define = Path(self.library).absolute(), f"Define it with ATB_KERNEL({self.symbol}, check, run)"
        if not path.is_file():
            hint = "Build the plugin, or reinstall its wheel for this platform."
            raise PluginError(f"there is no kernel library {path}", hint=hint)
        try:
            kernel = Kernel.in_dll(ctypes.CDLL(str(path)), self.symbol)
        except OSError as error:
            raise PluginError(
                f"the kernel library {path} cannot be loaded: {error}",
                hint="Build it for this platform; ldd shows which of its dependencies are not found.",
            ) from None
        except ValueError:
            raise PluginError(
                f"the kernel library {path} has no symbol {self.symbol!r}",
                hint=f"{define}; nm -D lists what the library exports.",
            ) from None
        if kernel.magic != MAGIC:
            raise PluginError(f"{self.symbol!r} of {path} is no kernel", hint=f"{define}.")
        _check_version(kernel.abi_version, f"kernel {self.symbol!r} of {path}")
        return _Functions(kernel.abi_version, kernel.run or 0, kernel.check or 0)


def _guarded(function: PythonFunction) -> Callable[[Any], int]:
    """Returns a function for ctypes that reports an exception as a failure; ctypes alone would return 0."""

    def call(pointer: Any) -> int:
        arguments: KernelCall = pointer.contents
        try:
            function(arguments)
        except BaseException as error:
            return arguments.fail(f"{type(error).__name__}: {error}")
        return 0

    return call


def _check_version(version: int, what: str) -> None:
    ours = load_extension().KERNEL_ABI_VERSION
    if version != ours:
        raise PluginError(
            f"{what} is written for version {version} of the kernel ABI; this atb_core has version {ours}",
            hint="Compile it with the header in atb_core.get_include(), or install a matching release of the plugin.",
        )


_lock = threading.Lock()
_registered: dict[str, CpuKernel] = {}


def register_cpu_kernel(op: type[Op], kernel: CpuKernel) -> None:
    """Makes the cpu engine run `op` with `kernel` for the rest of the process, and adds "cpu" to `op.backends`.

    The kernel may write its outputs and the inputs in `op.writes`. Registering the same kernel again has no effect.

    Raises:
        PluginError: the op cannot have a kernel or has another one, or the kernel cannot be loaded.
        BackendUnavailableError: there is no cpu engine.
    """
    with _lock:
        name = op.op_name()
        if registered_ops().get(name) is not op:
            cause = f"{name} is no op, or another op of this name was declared later"
            raise PluginError(cause, hint="Rename the class.")
        if op.is_view:
            raise PluginError(f"op {name} is a view, which has no kernel", hint="Leave `is_view` False in the op.")
        if _registered.get(name) == kernel:
            # A reloaded module has a new class of this name.
            op.backends |= {"cpu"}
            return
        extension = load_extension()
        functions = kernel.load()
        version = extension.KERNEL_ABI_VERSION if functions.abi_version is None else functions.abi_version
        _check_version(version, f"the kernel of op {name}")
        try:
            extension.register_kernel(name, version, functions.run, functions.check, list(op.writes))
        except EngineError as error:
            raise PluginError(error.message, hint=f"An op has one kernel and a name of its own; see {_PAGE}.") from None
        _registered[name] = kernel
        op.backends |= {"cpu"}


def get_include() -> str:
    """Returns the folder for the compiler's `-I`, which contains `atb_core/kernel_abi.h`.

    Raises:
        EngineError: the headers are not installed.
    """
    package = Path(__file__).parents[1]
    # An editable installation keeps the extension and its headers elsewhere; a source tree has them in csrc.
    built = getattr(load_extension(), "__file__", None) or package / "_cpu"
    for folder in (Path(built).parent / "include", package / "include", package.parent / "csrc" / "include"):
        if (folder / "atb_core" / "kernel_abi.h").is_file():
            return str(folder)
    raise EngineError("atb_core/kernel_abi.h is not installed", hint="Reinstall atb-core.")
