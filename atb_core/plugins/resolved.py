# SPDX-License-Identifier: Apache-2.0
"""The same plugins in every process: what one process found, handed to those that it starts.

A process that starts workers gives them `child_environment()`. A worker that finds other plugins than its parent
refuses to go on and says which differ, instead of running half a model with another version of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from atb_core.errors import PluginError
from atb_core.plugins.admission import refusal
from atb_core.plugins.once import Once
from atb_core.plugins.scan import Environment, Installed, environment
from atb_core.settings import settings

__all__ = ["ResolvedPlugin", "ResolvedSet", "child_environment", "resolved", "verify_resolved"]

_VARIABLE = "ATB_RESOLVED_PLUGINS"


@dataclass(frozen=True, order=True)
class ResolvedPlugin:
    """One usable plugin.

    Attributes:
        entries: a digest of its entry points; all of them would not fit into an environment variable.
    """

    distribution: str
    version: str
    entries: str


@dataclass(frozen=True)
class ResolvedSet:
    """The plugins that a process may use, and who serves what where several claim it."""

    plugins: tuple[ResolvedPlugin, ...]
    prefer: tuple[tuple[str, str], ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that are the same if and only if (for all practical purposes) the set is."""
        return _digest(self.to_json())

    def to_json(self) -> str:
        """One line of JSON, the same for the same set."""
        plugins = {one.distribution: [one.version, one.entries] for one in self.plugins}
        return json.dumps({"plugins": plugins, "prefer": dict(self.prefer)}, sort_keys=True, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> ResolvedSet:
        """The inverse of `to_json`.

        Raises:
            PluginError: it is not what `to_json` writes.
        """
        try:
            data = json.loads(text)
            plugins = [
                ResolvedPlugin(name, str(version), str(digest)) for name, (version, digest) in data["plugins"].items()
            ]
            prefer = [(str(model_type), str(name)) for model_type, name in data["prefer"].items()]
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise PluginError(
                f"{_VARIABLE} holds no set of plugins: {error}",
                hint=f"It is set for worker processes; unset {_VARIABLE}.",
            ) from error
        return ResolvedSet(tuple(sorted(plugins)), tuple(sorted(prefer)))

    def differences(self, other: ResolvedSet) -> list[str]:
        """What `other` has differently, a few words for each plugin."""
        mine = {one.distribution: one for one in self.plugins}
        theirs = {one.distribution: one for one in other.plugins}
        found = []
        for name in sorted(mine.keys() | theirs.keys()):
            here, there = mine.get(name), theirs.get(name)
            if here == there:
                continue
            if there is None:
                found.append(f"{name} is missing")
            elif here is None:
                found.append(f"{name} {there.version} was not there")
            elif here.version != there.version:
                found.append(f"{name} {there.version} instead of {here.version}")
            else:
                found.append(f"{name} {there.version} has other entry points")
        if self.prefer != other.prefer:
            found.append(f"plugins.prefer is {dict(other.prefer)} instead of {dict(self.prefer)}")
        return found


@Once
def resolved() -> ResolvedSet:
    """The plugins that this process may use; imports none of them."""
    return resolve_set(environment())


def resolve_set(among: Environment) -> ResolvedSet:
    """The plugins that may be used of what is installed."""
    plugins = [
        ResolvedPlugin(one.key, one.version, _entries_digest(one))
        for one in among.installed
        if refusal(one, among) is None
    ]
    return ResolvedSet(tuple(sorted(plugins)), tuple(sorted(settings().plugins.prefer.items())))


def child_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a worker process: it searches the same directories and must find the same plugins.

    Args:
        environ: what to start from; by default this process's environment.
    """
    paths = [os.path.abspath(path) for path in sys.path]
    return {
        **(os.environ if environ is None else environ),
        "PYTHONPATH": os.pathsep.join(paths),
        _VARIABLE: resolved().to_json(),
    }


def verify_resolved() -> None:
    """In a worker: compares what it finds with what its parent found.

    Raises:
        PluginError: they differ; names every plugin that does.
    """
    text = os.environ.get(_VARIABLE)
    if not text:
        return
    differences = ResolvedSet.from_json(text).differences(resolved())
    if differences:
        raise PluginError(
            f"this process finds other plugins than the one that started it: {'; '.join(differences)}",
            hint="Start again: a package was probably installed, upgraded or removed meanwhile; on several machines,"
            " install the same versions on each.",
        )


def _entries_digest(one: Installed) -> str:
    return _digest("\n".join(sorted(entry.target for entry in one.entries)))[:8]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
