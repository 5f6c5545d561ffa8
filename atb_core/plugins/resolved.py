# SPDX-License-Identifier: Apache-2.0
"""The same plugins in every process: a process hands what it found to those that it starts.

A process that starts workers gives them `child_environment()`. A worker that finds other plugins than its parent
refuses to go on and says which differ, instead of running half a model with another version of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from atb_core.errors import PluginError
from atb_core.plugins.admission import refusal
from atb_core.plugins.scan import Environment, Installed, environment
from atb_core.settings import settings

__all__ = ["child_environment", "resolve", "verify_resolved"]

_VARIABLE = "ATB_RESOLVED_PLUGINS"
#: `plugins`: version and digest of the entry points (which would not fit into an environment variable) of each usable
#: distribution; `prefer`: the distribution that is preferred for a model type.
ResolvedSet: TypeAlias = dict[str, dict[str, Any]]


def resolve(among: Environment | None = None) -> ResolvedSet:
    """Returns the plugins that this process may use; imports none of them.

    Args:
        among: what is installed; by default on `sys.path`.
    """
    among = environment() if among is None else among
    usable = [one for one in among.installed if refusal(one, among) is None]
    return {
        "plugins": {one.key: [one.version, _entries_digest(one)] for one in usable},
        "prefer": dict(sorted(settings().plugins.prefer.items())),
    }


def child_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Returns the environment for a worker: it searches the same directories and must find the same plugins.

    Args:
        environ: what to start from; by default this process's environment.
    """
    return {
        **(os.environ if environ is None else environ),
        "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
        _VARIABLE: json.dumps(resolve(), separators=(",", ":")),
    }


def verify_resolved() -> None:
    """Compares, in a worker, what it finds with what its parent found.

    Raises:
        PluginError: they differ, and the message names every plugin that does; or the variable holds something else.
    """
    text = os.environ.get(_VARIABLE)
    if not text:
        return
    try:
        parents = json.loads(text)
        differences = list(_differences(parents, resolve()))
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise PluginError(
            f"{_VARIABLE} holds no set of plugins: {error}",
            hint=f"It is set for worker processes; unset {_VARIABLE}.",
        ) from error
    if differences:
        raise PluginError(
            f"this process finds other plugins than the one that started it: {'; '.join(differences)}",
            hint="Start again: a package was probably installed, upgraded or removed meanwhile; on several machines,"
            " install the same versions on each.",
        )


def _differences(parents: ResolvedSet, ours: ResolvedSet) -> Iterator[str]:
    before = {str(name): (str(version), str(digest)) for name, (version, digest) in parents["plugins"].items()}
    now = {name: (version, digest) for name, (version, digest) in ours["plugins"].items()}
    for name in sorted(before.keys() | now.keys()):
        if name not in now:
            yield f"{name} is missing"
        elif name not in before:
            yield f"{name} {now[name][0]} was not there"
        elif before[name][0] != now[name][0]:
            yield f"{name} {now[name][0]} instead of {before[name][0]}"
        elif before[name] != now[name]:
            yield f"{name} {now[name][0]} has other entry points"
    if parents["prefer"] != ours["prefer"]:
        yield f"plugins.prefer is {ours['prefer']} instead of {parents['prefer']}"


def _entries_digest(one: Installed) -> str:
    return hashlib.sha256("\n".join(sorted(entry.target for entry in one.entries)).encode()).hexdigest()[:8]
