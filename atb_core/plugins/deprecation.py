# SPDX-License-Identifier: Apache-2.0
"""How something in the public surface goes away: it works and warns until the version in which it is removed.

A warning says what to write instead, since when, and when the old form goes, and points at the line of the plugin
that uses it; each line is told once. A test fails when core reaches the version of removal and the old form is
still there.

    @renamed_parameter("num_heads", "heads", since="1.2", removed_in="2.0")
    def attention(x, heads): ...

    __getattr__ = moved(__name__, {"Linear": "atb_core.layers.linear.linear:Linear"}, since="1.2", removed_in="2.0")

    @hookspec(historic=True, **deprecated_hook("atb_passes", "atb_fusion_passes", since="1.2", removed_in="2.0"))
    def atb_passes(): ...
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import FrameType
from typing import Any, Literal, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class ApiDeprecationWarning(DeprecationWarning):
    """Something of core's public surface that a plugin uses is going away."""


@dataclass(frozen=True)
class Deprecation:
    """One thing that is going away.

    Attributes:
        kind: what it is.
        name: of it, with its module or function.
        instead: what to write.
        since: version of core in which it was replaced.
        removed_in: the first version of core without it.
    """

    kind: Literal["hook", "hook argument", "parameter", "name"]
    name: str
    instead: str
    since: str
    removed_in: str

    def __str__(self) -> str:
        return (
            f"the {self.kind} {self.name} is deprecated since atb-core {self.since} and goes in {self.removed_in}: "
            f"use {self.instead}"
        )

    def overdue(self, version: str) -> bool:
        """Whether core at `version` must not have it any more."""
        from packaging.version import Version

        return Version(version) >= Version(self.removed_in)

    def warn(self, frame: FrameType) -> None:
        """Warns at the line that `frame` stands on; a line is told once, whatever the filters."""
        place = (self, frame.f_code.co_filename, frame.f_lineno)
        if place in _told:
            return
        _told.add(place)
        names = frame.f_globals
        registry = names.setdefault("__warningregistry__", {})
        # Not warnings.warn: it counts frames in its own way where importlib's are among them.
        warning = ApiDeprecationWarning(str(self))
        warnings.warn_explicit(warning, None, *place[1:], names.get("__name__"), registry)


_told: set[tuple[Deprecation, str, int]] = set()
_declared: dict[Deprecation, None] = {}


def declared() -> tuple[Deprecation, ...]:
    """Every deprecation in the modules that have been imported."""
    return tuple(_declared)


def _declare(deprecation: Deprecation) -> Deprecation:
    _declared[deprecation] = None
    return deprecation


def renamed_parameter(old: str, new: str, *, since: str, removed_in: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Lets callers of the decorated function go on saying `old=`, with a warning; TypeError for both at once."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        name = f"{old!r} of {function.__module__}.{function.__qualname__}"
        deprecation = _declare(Deprecation("parameter", name, f"{new!r}", since, removed_in))

        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            if old in kwargs:
                if new in kwargs:
                    raise TypeError(f"{function.__qualname__}() got {new!r} and its old name {old!r}")
                deprecation.warn(sys._getframe(1))
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return wrapper

    return decorate


def moved(module: str, names: Mapping[str, str], *, since: str, removed_in: str) -> Callable[[str], Any]:
    """A module's `__getattr__` that finds names which have moved elsewhere, with a warning.

    Args:
        module: the module they are gone from: `__name__`.
        names: name -> new place, as `package.module:name`.
    """
    known = {
        old: _declare(Deprecation("name", f"{module}.{old}", place.replace(":", "."), since, removed_in))
        for old, place in names.items()
    }

    def __getattr__(name: str) -> Any:
        if name not in known:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        known[name].warn(_importing_frame(sys._getframe(1)))
        home, _, attribute = names[name].partition(":")
        return getattr(import_module(home), attribute)

    return __getattr__


def _importing_frame(frame: FrameType) -> FrameType:
    """The line that wants a name: `from package import name` asks for it through frames of importlib."""
    while frame.f_back is not None and "importlib._bootstrap" in frame.f_code.co_filename:
        frame = frame.f_back
    return frame


def deprecated_hook(name: str, instead: str, *, since: str, removed_in: str) -> dict[str, Any]:
    """For `hookspec`: an implementation of the hook `name` is told what to implement instead."""
    deprecation = _declare(Deprecation("hook", name, instead, since, removed_in))
    return {"warn_on_impl": ApiDeprecationWarning(str(deprecation))}


def deprecated_arguments(hook: str, names: Mapping[str, str], *, since: str, removed_in: str) -> dict[str, Any]:
    """For `hookspec`: an implementation of `hook` that takes one of `names` is told what to take instead."""
    found = {
        old: _declare(Deprecation("hook argument", f"{old!r} of {hook}", new, since, removed_in))
        for old, new in names.items()
    }
    return {"warn_on_impl_args": {old: ApiDeprecationWarning(str(each)) for old, each in found.items()}}
