# SPDX-License-Identifier: Apache-2.0
"""Extension points: how a layer reaches what stands above it without importing it.

A layer declares a slot in the file that uses it, with the check of what may be put in:

    FUSIONS: Extensions[Pass] = Extensions("atb_fusion_passes", "a list of Pass", pass_problem)

The plugin system fills the slot when it is first read. A layer that needs a single thing from above declares a port:

    families: Port[Families] = Port("families")

`atb_core/__init__.py` connects every port to its implementation by name; that is imported on first use.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

from atb_core.errors import PluginError

__all__ = ["Contribution", "Extensions", "Owner", "Port", "Provider", "connect"]

T = TypeVar("T")

_connections: dict[str, object] = {}


def connect(port: str, implementation: object) -> None:
    """Connects the port called `port` to its implementation.

    Args:
        implementation: an object, or the text `"module"` or `"module:attribute"`, which is imported on first use.
    """
    _connections[port] = implementation


class Port(Generic[T]):
    """Declares one thing that a layer needs from a higher layer. Calling the port returns the implementation."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self) -> T:
        implementation = _connections[self.name]
        if isinstance(implementation, str):
            module, _, attribute = implementation.partition(":")
            imported = importlib.import_module(module)
            implementation = _connections[self.name] = getattr(imported, attribute) if attribute else imported
        return cast(T, implementation)


@dataclass(frozen=True)
class Owner:
    """Names who contributed something: a distribution and the entry point that led to it.

    Attributes:
        path: directory of the distribution's metadata.
        target: the entry point, for load records.
    """

    distribution: str
    version: str = ""
    path: Path = Path()
    target: str = ""

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}".rstrip()


@dataclass(frozen=True)
class Contribution(Generic[T]):
    """Pairs a contributed value with its owner."""

    owner: Owner
    value: T


class Provider(Protocol):
    """Fills slots: the interface of the plugin system."""

    def contributions(self, slot: Extensions[Any]) -> list[Contribution[Any]]:
        """Returns everything that was contributed to `slot` so far and passed its check."""
        ...

    def failed(self, owner: Owner, what: str, error: BaseException) -> None:
        """Records that `what` of `owner` is left out because of `error`; raises PluginError in strict mode."""
        ...

    def failures(self) -> str:
        """Returns a sentence that names the owners that failed, with a leading space; empty if none did."""
        ...


_provider: Port[Provider] = Port("plugins")


class Extensions(Generic[T]):
    """Declares one extension point.

    Args:
        hook: name of the hook that fills the slot.
        expected: what the hook returns, in words, for messages.
        problem: says what is wrong with a contributed item; `None` if nothing is.
    """

    def __init__(self, hook: str, expected: str, problem: Callable[[object], str | None]) -> None:
        self.hook = hook
        self.expected = expected
        self.problem = problem

    def all(self) -> list[Contribution[T]]:
        """Returns the contributions so far; PluginError in strict mode if any plugin failed."""
        return _provider().contributions(self)

    def only(self, matches: Callable[[T], bool], what: str) -> Contribution[T] | None:
        """Returns the one contribution that matches, `None` without one.

        Args:
            what: the name that is claimed, for the message: `"the feature 'lora'"`.

        Raises:
            PluginError: several contributions match; names their owners.
        """
        claims = [item for item in self.all() if matches(item.value)]
        if len(claims) > 1:
            raise PluginError(
                f"{what} comes from several plugins: {' and '.join(str(item.owner) for item in claims)}",
                hint=f"Uninstall all but one, or leave one out: ATB_NO_PLUGINS={claims[-1].owner.distribution}.",
            )
        return claims[0] if claims else None

    def failed(self, owner: Owner, what: str, error: BaseException) -> None:
        """Records that `what`, contributed by `owner`, is left out because of `error`."""
        _provider().failed(owner, what, error)

    def failures(self) -> str:
        """Returns a sentence naming the plugins that failed and might have offered what is missing, or `""`."""
        return _provider().failures()
