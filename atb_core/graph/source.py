# SPDX-License-Identifier: Apache-2.0
"""Where in the author's code, and in which module, a node was recorded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

# Frames inside these folders are the recorder itself; the author's line is the first one outside.
_PACKAGE = Path(__file__).resolve().parents[1]
_MACHINERY = (f"{_PACKAGE / 'graph'}/", f"{_PACKAGE / 'nn'}/")
_TORCH_MODULE = "/torch/nn/modules/module.py"

_module_path: ContextVar[str] = ContextVar("atb_module_path", default="")
_source: ContextVar[str] = ContextVar("atb_source", default="")


@contextmanager
def module_scope(name: str) -> Iterator[None]:
    """Nodes recorded inside get `name` appended to their module path; an empty name adds nothing."""
    outer = _module_path.get()
    token = _module_path.set(f"{outer}.{name}" if outer and name else outer or name)
    try:
        yield
    finally:
        _module_path.reset(token)


@contextmanager
def place_of(path: str, source: str) -> Iterator[None]:
    """Nodes recorded inside get exactly this place: passes keep that of the nodes they replace."""
    tokens = _module_path.set(path), _source.set(source)
    try:
        yield
    finally:
        _source.reset(tokens[1])
        _module_path.reset(tokens[0])


def current_module_path() -> str:
    """The dotted path of the module whose `forward` is being recorded, empty outside of modules."""
    return _module_path.get()


def author_line() -> str:
    """`file:line` of the innermost frame that belongs neither to the recorder nor to torch's Module."""
    if _source.get():
        return _source.get()
    frame = sys._getframe(1)
    while frame.f_back is not None:
        filename = frame.f_code.co_filename
        if not filename.startswith(_MACHINERY) and not filename.endswith(_TORCH_MODULE):
            break
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
