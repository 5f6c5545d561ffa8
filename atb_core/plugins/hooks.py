# SPDX-License-Identifier: Apache-2.0
"""Fills the extension points of the layers with what installed plugins contribute; provider of `atb_core.extensions`.

pluggy keeps the implementations. A plugin's module is imported when a hook is first needed; an implementation that
fails or returns anything but the expected list is recorded and warned of once while all others go on, and every
contribution has an owner.
"""

from __future__ import annotations

import functools
import itertools
import logging
import operator
import threading
import traceback
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import pluggy

from atb_core.errors import AtbError, PluginError, error_text
from atb_core.extensions import Contribution, Extensions, Owner
from atb_core.names import command
from atb_core.plugin_errors import blame
from atb_core.plugins import hookspecs
from atb_core.plugins.admission import check_names, refusal
from atb_core.plugins.hook_rules import hook_problem, implementations
from atb_core.plugins.loader import load_entry
from atb_core.plugins.once import Once
from atb_core.plugins.records import LoadRecord, Status, add_record
from atb_core.plugins.scan import HOOKS, Entry, Installed, installed
from atb_core.plugins.slow_calls import told_if_slow
from atb_core.settings import settings

_log = logging.getLogger(__name__)
# The attribute that `hookimpl` sets.
_MARK = f"{hookspecs.PROJECT}_impl"


class Hooks:
    """Holds the hook implementations of a process.

    Attributes:
        failed: the owners of what was left out, each with the error.
    """

    def __init__(self) -> None:
        self.failed: dict[Owner, PluginError] = {}
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs.SPECS)
        self._contributions: dict[str, list[Contribution[Any]]] = {}
        self._points: dict[str, Extensions[Any]] = {}
        self._loaded = False
        self._warned: set[str] = set()
        self._lock = threading.RLock()

    def contributions(self, point: Extensions[Any]) -> list[Contribution[Any]]:
        """Returns all contributions to `point` so far; PluginError in strict mode if any plugin has failed."""
        with self._lock:
            if not self._loaded:
                check_names()
                # Set first: an implementation may itself need a hook.
                self._loaded = True
                # pluggy calls the last one first; this way plugins come in the order of their names.
                for distribution in reversed(installed()):
                    for entry in distribution.entries:
                        if entry.group == HOOKS:
                            self._load(distribution, entry)
            if point.hook not in self._contributions:
                self._points[point.hook] = point
                contributions = self._contributions[point.hook] = []
                getattr(self._manager.hook, point.hook).call_historic(contributions.extend)
            if self.failed and settings().plugins.strict:
                raise next(iter(self.failed.values()))
            return list(self._contributions[point.hook])

    def _load(self, distribution: Installed, entry: Entry) -> None:
        owner = distribution.owner(entry)
        try:
            module = load_entry(distribution, entry)
        except PluginError as error:
            refused = refusal(distribution)
            if refused is None or refused.status is not Status.DISABLED:
                self._remember(owner, error)  # the loader has left the record
            return
        self._take(module, owner)  # the loader has checked it

    def register(self, plugin: object, owner: Owner) -> None:
        """Checks a plugin and takes its implementations; PluginError says what is wrong with them."""
        with self._lock:
            if self._manager.has_plugin(_key(owner)):
                raise PluginError(f"a plugin called {owner.distribution!r} is registered already")
            if problem := hook_problem(plugin):
                raise PluginError(f"{owner} {problem}")
            self._take(plugin, owner)

    def _take(self, plugin: object, owner: Owner) -> None:
        facade = ModuleType(owner.distribution)
        for name, hook in implementations(plugin).items():
            # An optional hook of a later core has no extension point here.
            if hook in hookspecs.HOOKS:
                guarded = self._guarded(getattr(plugin, name), hook, owner)
                # The mark of a static method is not on its function.
                marked = guarded if hasattr(guarded, _MARK) else hookspecs.hookimpl(specname=hook)(guarded)
                setattr(facade, name, marked)
        self._manager.register(facade, _key(owner))

    def _guarded(self, function: Callable[..., Any], hook: str, owner: Owner) -> Callable[..., list[Contribution[Any]]]:
        """Returns an implementation of `hook` that gives checked contributions and never fails."""

        @functools.wraps(function)
        def guarded(*args: Any) -> list[Contribution[Any]]:
            try:
                with told_if_slow(f"the hook {hook} of the plugin {owner}", owner.distribution):
                    items = _checked(function(*args), self._points[hook])
                return [Contribution(owner, item) for item in items]
            except KeyboardInterrupt:
                raise
            # An error of one plugin, SystemExit too, must not harm others.
            except BaseException as error:
                self.note(owner, hook, error)
                return []

        return guarded

    def note(self, owner: Owner, what: str, error: BaseException) -> PluginError:
        """Records, and warns once, that `what` of a plugin is left out; returns the error that says so."""
        blamed = blame(error, owner)
        cause = str(error) if isinstance(error, AtbError) else error_text(error) + (blamed[1] if blamed else "")
        left_out = PluginError(
            f"{what} of the plugin {owner} is left out: {cause}",
            hint=f"Upgrade it, or leave it out: ATB_NO_PLUGINS={owner.distribution}.",
        )
        if self._remember(owner, left_out):
            trace = "".join(traceback.format_exception(error))
            target = f"{owner.target} ({what})"
            what_failed = (owner.distribution, owner.version, owner.path, target, Status.FAILED)
            add_record(LoadRecord(*what_failed, left_out.message, left_out.hint, trace))
        return left_out

    def _remember(self, owner: Owner, error: PluginError) -> bool:
        """Warns of an error; returns False if it has done so before."""
        if str(error) in self._warned:
            return False
        self._warned.add(str(error))
        self.failed.setdefault(owner, error)
        # In strict mode it is raised instead.
        if not settings().plugins.strict:
            _log.warning("%s", error)
        return True


def _key(owner: Owner) -> str:
    return f"{owner.distribution} {owner.target}"


def _checked(result: object, point: Extensions[Any]) -> Iterable[object]:
    """Returns the list that an implementation gave; PluginError if it is anything else."""
    if not isinstance(result, (list, tuple)):
        raise PluginError(f"it returned {result!r}, not {point.expected}")
    for item in result:
        if problem := point.problem(item):
            raise PluginError(f"{problem}; expected was {point.expected}")
    return result


def contributions(point: Extensions[Any]) -> list[Contribution[Any]]:
    """Returns what plugins contribute to `point`; PluginError in strict mode if any plugin has failed."""
    return _hooks().contributions(point)


def register_hooks(plugin: object, name: str, version: str = "") -> None:
    """Adds the hooks of an object that no package brings: a module, or a class of a notebook.

    Hooks of a kind that has been needed before are called now.

    Args:
        plugin: a module or class with functions under `hookimpl`.
        name: names it in messages, as a distribution's name does.
        version: for messages.

    Raises:
        PluginError: the name is taken, or `plugin` implements no hook, an unknown one, or one in another form.
    """
    module = getattr(plugin, "__module__", None) or getattr(plugin, "__name__", "")
    _hooks().register(plugin, Owner(name, version, target=f"{HOOKS}: registered as {name}", module=str(module)))


def failed(owner: Owner, what: str, error: BaseException) -> None:
    """Records, and warns once, that `what` of a plugin is left out because of `error`.

    Raises:
        PluginError: the settings are strict (`ATB_STRICT=1`).
    """
    left_out = _hooks().note(owner, what, error)
    if settings().plugins.strict:
        raise left_out from error


def failures() -> str:
    """Returns a sentence naming the plugins that failed and might have offered what is missing; empty if none has."""
    names = ", ".join(dict.fromkeys(str(owner) for owner in _hooks().failed))
    return f" These plugins failed and may offer it: {names} ({command('plugins doctor')} says why)." if names else ""


def owner_of(module: str) -> Owner | None:
    """Returns the installed plugin whose entry points share the most of their path with `module`, if any."""
    parts = module.split(".")
    best, owner = 0, None
    for one in installed():
        for entry in one.entries:
            shared = sum(1 for _ in itertools.takewhile(bool, map(operator.eq, parts, entry.module.split("."))))
            if shared > best:
                best, owner = shared, one.owner(entry)
    return owner


@Once
def _hooks() -> Hooks:
    return Hooks()
