# SPDX-License-Identifier: Apache-2.0
"""Keeps the hook implementations of a process: imports, checks and calls them, each one apart from the others."""

from __future__ import annotations

import functools
import logging
import threading
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

import pluggy

from atb_core.errors import AtbError, PluginError
from atb_core.plugins import hookspecs
from atb_core.plugins.admission import check_names, refusal
from atb_core.plugins.contribution_checks import CHECKS
from atb_core.plugins.hook_rules import hook_problem, implementations
from atb_core.plugins.loader import load_entry
from atb_core.plugins.records import LoadRecord, Status, add_record
from atb_core.plugins.resolved import verify_resolved
from atb_core.plugins.scan import HOOKS, Entry, Installed, installed
from atb_core.settings import settings

T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Owner:
    """Who contributed something: a distribution, and the entry point that led to it.

    Attributes:
        path: where the distribution's metadata lies.
        target: the entry point, for records.
    """

    distribution: str
    version: str = ""
    path: Path = Path()
    target: str = ""

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}".rstrip()


@dataclass(frozen=True)
class Offered(Generic[T]):
    """A contribution and its owner."""

    owner: Owner
    value: T


class Hooks:
    """The hook implementations of a process.

    Attributes:
        failed: the owners of what was left out, each with the error.
    """

    def __init__(self) -> None:
        self.failed: dict[Owner, PluginError] = {}
        self._manager = _Collector(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._found: dict[str, list[Offered[Any]]] = {}
        self._loaded = False
        self._told: set[str] = set()
        self._lock = threading.RLock()

    def offered(self, hook: str) -> list[Offered[Any]]:
        """All contributions to `hook` so far; in strict mode PluginError if any plugin has failed."""
        with self._lock:
            if not self._loaded:
                check_names()
                verify_resolved()
                # Set first: an implementation may itself need a hook.
                self._loaded = True
                self._load_installed()
            if hook not in self._found:
                found = self._found[hook] = []
                getattr(self._manager.hook, hook).call_historic(found.extend)
            if self.failed and settings().plugins.strict:
                raise next(iter(self.failed.values()))
            return list(self._found[hook])

    def _load_installed(self) -> None:
        # pluggy calls the last one first; this way plugins come in the order of their names.
        for distribution in reversed(installed()):
            for entry in distribution.entries:
                if entry.group == HOOKS:
                    self._load(distribution, entry)

    def _load(self, distribution: Installed, entry: Entry) -> None:
        owner = Owner(distribution.distribution, distribution.version, distribution.path, entry.target)
        try:
            module = load_entry(distribution, entry)
        except PluginError as error:
            refused = refusal(distribution)
            if refused is None or refused.status is not Status.DISABLED:
                # The loader has left the record.
                self._remember(owner, error)
            return
        # The loader has checked it.
        self._take(module, owner)

    def register(self, plugin: object, owner: Owner) -> None:
        """Checks a plugin and takes its implementations; PluginError says what is wrong with them."""
        with self._lock:
            if self._manager.has_plugin(_key(owner)):
                raise PluginError(f"a plugin called {owner.distribution!r} is registered already")
            problem = hook_problem(plugin)
            if problem is not None:
                raise PluginError(f"{owner} {problem}")
            self._take(plugin, owner)

    def _take(self, plugin: object, owner: Owner) -> None:
        self._manager.register(_guarded(plugin, self, owner), _key(owner))

    def note(self, owner: Owner, what: str, error: BaseException) -> PluginError:
        """Records and tells that `what` of a plugin is left out."""
        cause = str(error) if isinstance(error, AtbError) else f"{type(error).__name__}: {error}"
        found = PluginError(
            f"{what} of the plugin {owner} is left out: {cause}",
            hint=f"Upgrade it, or leave it out: ATB_NO_PLUGINS={owner.distribution}.",
        )
        if self._remember(owner, found):
            trace = "".join(traceback.format_exception(error))
            target = f"{owner.target} ({what})"
            record = LoadRecord(owner.distribution, owner.version, owner.path, target, Status.FAILED)
            add_record(replace(record, reason=found.message, fix=found.hint, exception=trace))
        return found

    def _remember(self, owner: Owner, error: PluginError) -> bool:
        """Tells of an error; False if it has been told before."""
        if str(error) in self._told:
            return False
        self._told.add(str(error))
        self.failed.setdefault(owner, error)
        # In strict mode it is raised instead.
        if not settings().plugins.strict:
            _log.warning("%s", error)
        return True


def _key(owner: Owner) -> str:
    return f"{owner.distribution} {owner.target}"


class _Collector(pluggy.PluginManager):
    """Keeps implementations that `hook_problem` has seen; what it warned about is not told twice."""

    def parse_hookspec_opts(self, module_or_class: Any, name: str) -> Any:
        options = super().parse_hookspec_opts(module_or_class, name)
        return options and {**options, "warn_on_impl": None, "warn_on_impl_args": None}


def _guarded(plugin: object, hooks: Hooks, owner: Owner) -> ModuleType:
    """The implementations of `plugin`, each of which gives what it contributes as `Offered` and never fails."""
    facade = ModuleType(owner.distribution)
    for name, hook in implementations(plugin).items():
        if hook in CHECKS:
            setattr(facade, name, _guard(getattr(plugin, name), hook, hooks, owner))
    return facade


def _guard(function: Callable[..., Any], hook: str, hooks: Hooks, owner: Owner) -> Callable[..., list[Offered[Any]]]:
    @functools.wraps(function)
    def guarded(*args: Any) -> list[Offered[Any]]:
        try:
            return [Offered(owner, item) for item in _checked(function(*args), hook)]
        except KeyboardInterrupt:
            raise
        # A plugin is foreign code: whatever it raises, SystemExit too, it harms nobody else.
        except BaseException as error:
            hooks.note(owner, hook, error)
            return []

    return guarded


def _checked(result: object, hook: str) -> Iterable[object]:
    """The list that an implementation returned; PluginError if it is anything else."""
    expected, problem = CHECKS[hook]
    if not isinstance(result, (list, tuple)):
        raise PluginError(f"it returned {result!r}, not {expected}")
    for item in result:
        wrong = problem(item)
        if wrong is not None:
            raise PluginError(f"{wrong}; expected was {expected}")
    return result
