# SPDX-License-Identifier: Apache-2.0
"""Imports what one entry point of a plugin names, and records the outcome.

Any failure of the import (an exception, an exit, a missing dependency, an import that never ends or leaves half of its
modules behind) ends in a record and, for the caller, in a PluginError that names the package.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from atb_core.errors import PluginError
from atb_core.plugins.admission import refusal
from atb_core.plugins.diagnosis import NotOfferedError, diagnose
from atb_core.plugins.kinds import wrong_kind
from atb_core.plugins.once import Once
from atb_core.plugins.records import LoadRecord, Status, add_record
from atb_core.plugins.scan import Entry, Environment, Installed
from atb_core.plugins.torch_import import protect_torch_import
from atb_core.plugins.watchdog import ImportTimeout, Watchdog
from atb_core.settings import settings

__all__ = ["check_module", "load_entry"]


@Once
def _loaded() -> dict[tuple[str, str], Any]:
    """Returns what has been loaded, by metadata path and entry point."""
    return {}


def load_entry(installed: Installed, entry: Entry, among: Environment | None = None) -> Any:
    """Returns the object that an entry point leads to: a module, or something in it.

    The first success is kept and recorded; a failure is recorded, and tried again by the next call.

    Args:
        installed: the plugin.
        entry: one of its entry points.
        among: everything that is installed, to check requirements; by default on `sys.path`.

    Raises:
        PluginError: the plugin is disabled or incompatible, its import fails, or it has not what the group needs.
            Gives package, version, cause and next step.
    """
    key = (str(installed.path), entry.target)
    if key not in _loaded():
        _admit(installed, entry, among)
        protect_torch_import()
        _loaded()[key] = _attempt(installed, entry, _resolve)
    return _loaded()[key]


def check_module(installed: Installed, entry: Entry, among: Environment | None = None) -> None:
    """Finds the module of an entry point without running it (the packages above it are imported).

    For modules that are expensive to import. Leaves a record only of a failure. Arguments and errors: see `load_entry`.
    """
    if (str(installed.path), entry.target) not in _loaded():
        _admit(installed, entry, among)
        _attempt(installed, entry, _find, remember_success=False)


def _admit(installed: Installed, entry: Entry, among: Environment | None) -> None:
    if refused := refusal(installed, among):
        _record(installed, entry, refused.status, reason=refused.reason, fix=refused.fix)
        raise PluginError(f"the plugin {installed.package} {refused.reason}", hint=refused.fix)


def _resolve(entry: Entry) -> Any:
    value: Any = importlib.import_module(entry.module)
    if entry.attribute is not None:
        try:
            value = functools.reduce(getattr, entry.attribute.split("."), value)
        except AttributeError:
            raise NotOfferedError(f"the module {entry.module!r} has no {entry.attribute!r}") from None
    if wrong := wrong_kind(entry.group, value):
        raise NotOfferedError(f"{entry.value!r} {wrong}")
    return value


def _find(entry: Entry) -> None:
    if importlib.util.find_spec(entry.module) is None:
        raise ModuleNotFoundError(f"No module named {entry.module!r}", name=entry.module)


def _attempt(installed: Installed, entry: Entry, work: Callable[[Entry], Any], remember_success: bool = True) -> Any:
    """Runs an import under guard and records the outcome."""
    before = frozenset(sys.modules)
    seconds = settings().plugins.import_seconds
    watchdog = Watchdog(seconds)
    start = time.perf_counter()
    value: Any = None
    failure: BaseException | None = None
    try:
        with watchdog:
            value = work(entry)
    # A plugin's code: anything that it raises, SystemExit too, is its failure and not its host's.
    except BaseException as error:
        failure = error
    spent = {
        "import_seconds": time.perf_counter() - start,
        "imported_torch": "torch" in sys.modules and "torch" not in before,
    }
    if failure is None:
        if remember_success:
            _record(installed, entry, Status.OK, **spent)
        return value
    if not isinstance(failure, NotOfferedError):
        _remove_modules(entry, before)
    # The timeout of an outer import.
    outer = isinstance(failure, ImportTimeout) and not watchdog.expired
    if isinstance(failure, KeyboardInterrupt) or outer:
        raise failure
    if watchdog.expired:
        name = installed.distribution
        reason = f"its import did not end within {seconds:g} s"
        fix = f"Leave it out (ATB_NO_PLUGINS={name}) or upgrade it (pip install --upgrade {name}); "
        fix += "ATB_PLUGIN_TIMEOUT sets another limit."
    else:
        reason, fix = diagnose(failure, installed, entry)
    text = "".join(traceback.format_exception(failure))
    _record(installed, entry, Status.FAILED, reason=reason, fix=fix, exception=text, **spent)
    message = f"the plugin {installed.package} failed to import {entry.value!r}: {reason}"
    raise PluginError(message, hint=fix) from failure


def _record(installed: Installed, entry: Entry, status: Status, **facts: Any) -> None:
    add_record(LoadRecord(installed.distribution, installed.version, installed.path, entry.target, status, **facts))


def _remove_modules(entry: Entry, before: frozenset[str]) -> None:
    """Removes what a failed import left of the plugin's package in `sys.modules`.

    Python removes only the module that failed; the next attempt would find the others half set up. Modules of other
    packages stay: their imports have ended.
    """
    top = entry.module.split(".")[0]
    if top == "atb_core":
        return
    for name in [name for name in sys.modules if name not in before]:
        if name == top or name.startswith(f"{top}."):
            module = sys.modules.pop(name)
            parent, _, child = name.rpartition(".")
            if getattr(sys.modules.get(parent), child, None) is module:
                delattr(sys.modules[parent], child)
    # Defining an op registers it. Without the module of ops there is nothing to forget.
    if ops := sys.modules.get("atb_core.graph.op"):
        ops.forget_ops(top)
