# SPDX-License-Identifier: Apache-2.0
"""Whether a plugin may be used at all: what the settings, its metadata and its requirements say, before any import."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from atb_core.errors import PluginError
from atb_core.names import normalized_name
from atb_core.plugins import compatibility
from atb_core.plugins.once import Once
from atb_core.plugins.records import Status
from atb_core.plugins.scan import Environment, Installed, environment
from atb_core.settings import PluginSettings, settings

__all__ = ["Refusal", "check_names", "refusal", "tell_once", "unmatched_names"]

_log = logging.getLogger(__name__)


@Once
def _told() -> set[str]:
    """What has been said in this process."""
    return set()


@dataclass(frozen=True)
class Refusal:
    """Why a plugin is not used.

    Attributes:
        reason: what comes after the package's name in a sentence: `is disabled by ATB_NO_PLUGINS`.
        fix: the next step.
    """

    status: Status
    reason: str
    fix: str


def refusal(
    installed: Installed, among: Environment | None = None, plugins: PluginSettings | None = None
) -> Refusal | None:
    """Why `installed` is not used, or `None` if it may be; imports nothing of it.

    Args:
        among: what is installed; by default on `sys.path`.
        plugins: the settings; by default those of this process.
    """
    plugins = settings().plugins if plugins is None else plugins
    disabled = _disabled(installed, plugins)
    if disabled is not None:
        return disabled
    if installed.problem is not None:
        fix = installed.fix or f"pip install --force-reinstall --no-deps {installed.distribution}"
        return Refusal(Status.FAILED, f"cannot be used: {installed.problem}", fix)
    problem = compatibility.check(installed, among)
    return None if problem is None else Refusal(Status.INCOMPATIBLE, problem.reason, problem.fix)


def _disabled(installed: Installed, plugins: PluginSettings) -> Refusal | None:
    key = installed.key
    for name in (key, "all"):
        if source := plugins.disabled.get(name):
            what = f"Take {name} out of {source} to use it."
            return Refusal(Status.DISABLED, f"is disabled by {source}", what)
    if plugins.only is not None and key not in plugins.only:
        what = f"Add {installed.distribution} to {plugins.only_source} to use it."
        return Refusal(Status.DISABLED, f"is left out by {plugins.only_source}, which does not name it", what)
    return None


def check_names(among: Environment | None = None, plugins: PluginSettings | None = None) -> None:
    """Tells of settings that name a package which is not installed: once, as a warning.

    Raises:
        PluginError: with `strict`.
    """
    among = environment() if among is None else among
    plugins = settings().plugins if plugins is None else plugins
    for message, hint in unmatched_names(among, plugins):
        if plugins.strict:
            raise PluginError(message, hint=hint)
        tell_once(f"{message}. {hint}")


def unmatched_names(among: Environment, plugins: PluginSettings) -> Iterator[tuple[str, str]]:
    """What the settings name and is not installed: a sentence, and the next step."""
    known = [one.key for one in among.installed]
    for name, source in _named(plugins).items():
        if name not in known:
            yield _unmatched(name, source, known, name in among)


def tell_once(message: str) -> None:
    """Warns, by way of `logging`: without any set-up that is a line on stderr."""
    if message not in _told():
        _told().add(message)
        _log.warning("%s", message)


def _named(plugins: PluginSettings) -> Mapping[str, str]:
    named = dict.fromkeys(sorted(plugins.only or ()), plugins.only_source)
    named.update(plugins.disabled)
    named.pop("all", None)
    for model_type, name in plugins.prefer.items():
        named.setdefault(name, plugins.prefer_sources[model_type])
    return named


def _unmatched(name: str, source: str, known: list[str], present: bool) -> tuple[str, str]:
    what = "is no plugin: it has no entry points for atb-core" if present else "is not installed"
    close = difflib.get_close_matches(normalized_name(name), known, n=1)
    hint = f"Did you mean {close[0]}?" if close else f"Correct the name, or install it (pip install {name})."
    if present and not close:
        hint = "Correct the name."
    return f"{source} names {name}, which {what}", hint
