# SPDX-License-Identifier: Apache-2.0
"""The place where features add to the results of linear layers while a variant is recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias

from atb_core.graph.tensor import Tensor

__all__ = ["adapted", "linear_hook"]

#: Takes a layer, its input and its result; returns what is used instead of the result.
LinearHook: TypeAlias = Callable[[Any, Tensor, Tensor], Tensor]

_hook: ContextVar[LinearHook | None] = ContextVar("linear_hook", default=None)


@contextmanager
def linear_hook(hook: LinearHook) -> Iterator[None]:
    """Calls `hook` for every linear layer that is recorded meanwhile, in this thread."""
    token = _hook.set(hook)
    try:
        yield
    finally:
        _hook.reset(token)


def adapted(layer: Any, x: Tensor, y: Tensor) -> Tensor:
    """Returns the result `y` of a layer on `x`, or what the current hook makes of it."""
    hook = _hook.get()
    return y if hook is None else hook(layer, x, y)
