# SPDX-License-Identifier: Apache-2.0
"""Origin of recorded nodes: the module path and the line of the author's code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

# Frames in these folders belong to the recorder; the author's line is in the first frame outside of them.
_PACKAGE = Path(__file__).resolve().parents[1]
_MACHINERY = (f"{_PACKAGE / 'graph'}/", f"{_PACKAGE / 'nn'}/")

_module_path: ContextVar[str] = ContextVar("atb_module_path", default="")
_source: ContextVar[str] = ContextVar("atb_source", default="")


@contextmanager
def module_scope(name: str) -> Iterator[None]:
    """Appends `name` to the module path of nodes recorded inside; an empty name adds nothing."""
    outer = _module_path.get()
    token = _module_path.set(f"{outer}.{name}" if outer and name else outer or name)
    try:
        yield
    finally:
        _module_path.reset(token)


@contextmanager
def place_of(path: str, source: str) -> Iterator[None]:
    """Gives nodes recorded inside exactly this place; passes keep the place of the nodes that they replace."""
    tokens = _module_path.set(path), _source.set(source)
    try:
        yield
    finally:
        _source.reset(tokens[1])
        _module_path.reset(tokens[0])


def current_module_path() -> str:
    """Returns the dotted path of the module whose `forward` is being recorded; empty outside of modules."""
    return _module_path.get()


def author_line() -> str:
    """Returns `file:line` of the innermost stack frame outside of the recorder."""
    if _source.get():
        return _source.get()
    frame = sys._getframe(1)
    while frame.f_back is not None:
        filename = frame.f_code.co_filename
        if not filename.startswith(_MACHINERY):
            break
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
