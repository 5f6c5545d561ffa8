# SPDX-License-Identifier: Apache-2.0
"""Extension points: what others may add to a layer of the core.

A layer declares a slot in the file that uses it, with the check of what may be put in:

    FUSIONS: Extensions[Pass] = Extensions("atb_fusion_passes", "a list of Pass", check_pass)

The layer knows nothing of plugins. Whoever stands above all layers installs a provider, which fills a slot when it is
first read. Without a provider every slot is empty.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from atb_core.errors import PluginError

__all__ = ["Contribution", "Extensions", "Owner", "Provider", "set_provider"]

T = TypeVar("T")


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
    """Fills slots. The plugin system is one; tests install others."""

    def contributions(self, slot: Extensions[Any]) -> list[Contribution[Any]]:
        """Returns everything that was contributed to `slot` so far and passed its check."""
        ...

    def failed(self, owner: Owner, what: str, error: BaseException) -> None:
        """Records that `what` of `owner` is left out because of `error`; raises PluginError in strict mode."""
        ...

    def failures(self) -> str:
        """Returns a sentence that names the owners that failed, with a leading space; empty if none did."""
        ...


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
        return [] if _provider is None else _provider.contributions(self)

    def only(self, matches: Callable[[T], bool], what: str) -> Contribution[T] | None:
        """Returns the one contribution that matches, `None` without one.

        Args:
            what: the name that is claimed, for the message: `"the feature 'lora'"`.

        Raises:
            PluginError: several contributions match; names their owners.
        """
        found = [item for item in self.all() if matches(item.value)]
        if len(found) > 1:
            raise PluginError(
                f"{what} comes from several plugins: {' and '.join(str(item.owner) for item in found)}",
                hint=f"Uninstall all but one, or leave one out: ATB_NO_PLUGINS={found[-1].owner.distribution}.",
            )
        return found[0] if found else None

    def failed(self, owner: Owner, what: str, error: BaseException) -> None:
        """Records that `what`, contributed by `owner`, is left out because of `error`."""
        if _provider is not None:
            _provider.failed(owner, what, error)

    def failures(self) -> str:
        """Returns a sentence naming the plugins that failed and might have offered what is missing, or `""`."""
        return "" if _provider is None else _provider.failures()


_provider: Provider | None = None


def set_provider(provider: Provider | None) -> None:
    """Installs what fills the slots from now on."""
    global _provider
    _provider = provider
