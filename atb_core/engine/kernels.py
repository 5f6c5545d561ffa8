# SPDX-License-Identifier: Apache-2.0
"""Kernels for the cpu engine that are not part of it: a plugin brings them for its own ops.

A kernel is written against the C header in `get_include()`, which says what it may rely on.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from atb_core.engine.extension import load_extension
from atb_core.engine.kernel_abi import MAGIC, Kernel, KernelCall, KernelFunction
from atb_core.errors import EngineError, PluginError
from atb_core.graph.custom_ops import CustomKernel
from atb_core.graph.op import Op, registered_ops

if TYPE_CHECKING:
    from typing import TypeAlias

__all__ = ["CpuKernel", "register_cpu_kernel"]

#: A `check` or `run` in Python: it raises where a C function returns an error.
PythonFunction: TypeAlias = "Callable[[KernelCall], object]"

_PAGE = "docs/custom-kernels.md"


class _Functions(NamedTuple):
    """Addresses, and whatever has to live as long as they are used."""

    abi_version: int | None  # None: this engine's
    run: int
    check: int
    keep: tuple[Any, ...] = ()


@dataclass(frozen=True)
class CpuKernel(CustomKernel):
    """The code that runs one op on the cpu engine: `symbol` of a shared library.

    Nothing is loaded before `register_cpu_kernel`; from then on the library stays loaded.

    Args:
        library: the shared library's file.
        symbol: the name that it gave to ATB_KERNEL.
    """

    library: str | os.PathLike[str] | None = None
    symbol: str | None = None
    _functions: _Functions | None = field(default=None, repr=False)
    backend: ClassVar[str] = "cpu"

    def __post_init__(self) -> None:
        given = self.library is not None and bool(self.symbol)
        if given == (self._functions is not None):
            raise PluginError(
                "a CpuKernel needs the file of a library and a symbol in it",
                hint='Write CpuKernel(library=Path(__file__).with_name("kernels.so"), symbol="my_kernel").',
            )

    @classmethod
    def from_address(cls, run: int, check: int = 0, *, abi_version: int | None = None) -> CpuKernel:
        """A kernel from the addresses of two functions `int32_t (atb_call *)`, for example of numba's `cfunc`.

        The caller keeps the code there until the process ends. `check` 0: the kernel runs whatever the op's shape
        rule allows. `abi_version` is the version that the functions are written for; by default this engine's.
        """
        return cls(_functions=_Functions(abi_version, run, check))

    @classmethod
    def from_python(cls, run: PythonFunction, check: PythonFunction | None = None) -> CpuKernel:
        """A kernel in Python, to try an op out: each part takes the GIL, and an exception becomes an EngineError."""
        functions = [KernelFunction(_guarded(f)) if f else None for f in (run, check)]
        addresses = [ctypes.cast(f, ctypes.c_void_p).value or 0 if f else 0 for f in functions]
        return cls(_functions=_Functions(None, addresses[0], addresses[1], (run, check, *functions)))

    def load(self) -> _Functions:
        """The functions' addresses; PluginError when library or symbol is missing, or of another ABI version."""
        if self._functions is not None:
            return self._functions
        assert self.library is not None
        assert self.symbol is not None
        path = Path(self.library).absolute()
        kernel = _find(_open(path), path, self.symbol)
        if kernel.magic != MAGIC:
            raise PluginError(
                f"{self.symbol!r} of {path} is no kernel", hint="Define it with ATB_KERNEL(name, check, run)."
            )
        _check_version(kernel.abi_version, f"kernel {self.symbol!r} of {path}")
        return _Functions(kernel.abi_version, kernel.run or 0, kernel.check or 0)


def _guarded(function: PythonFunction) -> Callable[[Any], int]:
    """For ctypes an exception is a message on stderr and a status of 0; here it is a failure."""

    def call(pointer: Any) -> int:
        given: KernelCall = pointer.contents
        try:
            function(given)
        except BaseException as error:
            return given.fail(f"{type(error).__name__}: {error}")
        return 0

    return call


def _open(path: Path) -> ctypes.CDLL:
    if not path.is_file():
        raise PluginError(
            f"there is no kernel library {path}",
            hint="Build it where the plugin's build puts it, or reinstall the plugin's wheel for this platform.",
        )
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise PluginError(
            f"the kernel library {path} cannot be loaded: {error}",
            hint="Build it for this platform, with what it links to (ldd shows what is not found).",
        ) from None


def _find(library: ctypes.CDLL, path: Path, symbol: str) -> Kernel:
    try:
        return Kernel.in_dll(library, symbol)
    except ValueError:
        raise PluginError(
            f"the kernel library {path} has no symbol {symbol!r}",
            hint=f"Define it with ATB_KERNEL({symbol}, check, run); nm -D lists what the library exports.",
        ) from None


def _check_version(version: int, what: str) -> None:
    ours = load_extension().KERNEL_ABI_VERSION
    if version != ours:
        raise PluginError(
            f"{what} is written for version {version} of the kernel ABI; this atb_core has version {ours}",
            hint="Compile it again with the header in atb_core.get_include(), or install a release of the plugin "
            "for this atb_core.",
        )


_lock = threading.Lock()
_registered: dict[str, CpuKernel] = {}


def register_cpu_kernel(op: type[Op], kernel: CpuKernel) -> None:
    """Makes the cpu engine run `op` with `kernel`, for the rest of the process; `op.backends` then says so.

    Doing so again with the same kernel changes nothing. `op.writes` names the inputs that the kernel writes.

    Raises:
        PluginError: the op is not one that may have a kernel, has another one already, or the kernel cannot be
            loaded; the op then has none.
        BackendUnavailableError: there is no cpu engine.
    """
    with _lock:
        name = op.op_name()
        _check_op(op, name)
        if _registered.get(name) == kernel:
            op.backends |= {"cpu"}  # the class may be a new one of this name
            return
        extension = load_extension()
        functions = kernel.load()
        version = extension.KERNEL_ABI_VERSION if functions.abi_version is None else functions.abi_version
        _check_version(version, f"the kernel of op {name}")
        try:
            extension.register_kernel(name, version, functions.run, functions.check, list(op.writes))
        except extension.Error as error:
            raise PluginError(str(error), hint=f"An op has one kernel and a name of its own; see {_PAGE}.") from None
        _registered[name] = kernel
        op.backends |= {"cpu"}


def _check_op(op: type[Op], name: str) -> None:
    if registered_ops().get(name) is not op:
        raise PluginError(f"{name} is no op, or another op of this name was declared later", hint="Rename the class.")
    if op.is_view:
        raise PluginError(
            f"op {name} is a view; a kernel writes outputs of their own", hint="Leave `is_view` False in the op."
        )


def get_include() -> str:
    """The folder for the compiler's -I: it has `atb_core/kernel_abi.h`. EngineError when it is not installed."""
    package = Path(__file__).parents[1]
    # Beside the extension, which an editable install keeps elsewhere; last, a source tree that is not installed.
    built = getattr(load_extension(), "__file__", None) or package / "_cpu"
    for folder in (Path(built).parent / "include", package / "include", package.parent / "csrc" / "include"):
        if (folder / "atb_core" / "kernel_abi.h").is_file():
            return str(folder)
    raise EngineError("atb_core/kernel_abi.h is not installed", hint="Reinstall atb-core.")
