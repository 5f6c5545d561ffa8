# SPDX-License-Identifier: Apache-2.0
"""Loads shared libraries with models whose graph C++ builds."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

from atb_core.child import try_in_child
from atb_core.engine.extension import load_extension
from atb_core.errors import EngineError
from atb_cpp_models.registered import registered_names

#: The libraries of this process. The extension of each backend loads them when one of their models is first used there.
loaded: list[str] = []

# An error of the extension is no crash; it is reported when this process loads the library.
_LOAD = "from atb_core import EngineError, _cpu\ntry:\n    _cpu.load_models(argument)\nexcept EngineError:\n    pass"
# Fields of the header of a 64-bit ELF file: offset of the section table, size of an entry, number of entries.
_ELF, _SECTIONS = b"\x7fELF\x02\x01", struct.Struct("<40xQ10xHH2x")


def load_native_library(path: str | os.PathLike[str]) -> list[str]:
    """Loads a shared library that registers C++ models (`atb_core/model.h`) and returns their names.

    A child process loads it first, so that a library that crashes does not end this process. A library is code: load
    only code that you trust.

    Raises:
        EngineError: the file is missing, cannot be loaded, was built for other headers, has no models, or has a model
            whose name is taken; then none of its models is added.
    """
    file = _file(path)
    _check_whole(file)
    # An interpreter embedded in another program may have no executable to start.
    problem = try_in_child(_LOAD, str(file)) if sys.executable else None
    if problem is not None:
        raise EngineError(f"{file} cannot be loaded: {problem}", hint="Build the library again.")
    taken = {
        name: " and ".join(f"the package {owner} (ATB_NO_PLUGINS={owner} leaves it out)" for owner in owners)
        for name, owners in registered_names().items()
    }
    names: list[str] = load_extension().load_models(str(file), taken)
    if str(file) not in loaded:
        loaded.append(str(file))
    return names


def _check_whole(file: Path) -> None:
    """Raises EngineError for a truncated library: reading a mapped page past its end kills the process."""
    # Linkers write the section table last.
    try:
        with open(file, "rb") as opened:
            header = opened.read(_SECTIONS.size)
        size = file.stat().st_size
    except OSError as error:
        raise EngineError(f"{file} cannot be read: {error}") from None
    if len(header) < _SECTIONS.size or not header.startswith(_ELF):
        return
    offset, entry, count = _SECTIONS.unpack(header)
    if size < offset + entry * count:
        raise EngineError(
            f"{file} is truncated: it has {size} of {offset + entry * count} bytes", hint="Build or copy it again."
        )


def _file(path: str | os.PathLike[str]) -> Path:
    """Returns the file at `path`; EngineError if it is none."""
    if path == "":
        raise EngineError("the path of the library is empty", hint="Give the path of a shared library.")
    try:
        file = Path(path).resolve()
        folder, there = file.is_dir(), file.exists()
    except (TypeError, ValueError, RuntimeError, OSError) as error:  # no path, a NUL, a loop of links
        raise EngineError(f"{path!r} is no path of a library: {error}", hint="Give that of a shared library.") from None
    if folder:
        raise EngineError(f"{file} is a folder", hint="Give the path of the shared library in it.")
    if not there:
        raise EngineError(f"there is no library {file}")
    return file
