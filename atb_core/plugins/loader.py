# SPDX-License-Identifier: Apache-2.0
"""Imports what one entry point of a plugin names, and records the outcome.

Whatever the import of a plugin does (raise, exit, recurse, never end, import torch, lack a dependency, leave half its
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
from atb_core.plugins.admission import Refusal, refusal
from atb_core.plugins.diagnosis import Diagnosis, NotOfferedError, diagnose
from atb_core.plugins.kinds import wrong_kind
from atb_core.plugins.once import Once
from atb_core.plugins.records import LoadRecord, Status, add_record
from atb_core.plugins.scan import Entry, Environment, Installed
from atb_core.plugins.torch_import import protect_torch_import
from atb_core.plugins.watchdog import ImportTimeout, Watchdog
from atb_core.settings import settings

__all__ = ["check_module", "load_entry", "refused"]


@Once
def _loaded() -> dict[tuple[str, str], Any]:
    """What has been loaded, by metadata path and entry point."""
    return {}


def load_entry(installed: Installed, entry: Entry, among: Environment | None = None) -> Any:
    """The object that an entry point leads to: a module, or something in it.

    The first success is kept and recorded; a failure is recorded, and tried again when asked again.

    Args:
        among: what is installed, for the check of requirements; by default on `sys.path`.

    Raises:
        PluginError: the plugin is disabled or incompatible, its import fails, or it has not what the group needs.
            Says which package, which version, why, and what to do.
    """
    key = (str(installed.path), entry.target)
    if key not in _loaded():
        _admit(installed, entry, among)
        protect_torch_import()
        _loaded()[key] = _attempt(installed, entry, lambda: _resolve(entry))
    return _loaded()[key]


def check_module(installed: Installed, entry: Entry, among: Environment | None = None) -> None:
    """Finds the module of an entry point without running it (the packages that it lies in are imported).

    For modules that are expensive to import. Leaves a record only of a failure.

    Raises:
        PluginError: as `load_entry`.
    """
    if (str(installed.path), entry.target) not in _loaded():
        _admit(installed, entry, among)
        _attempt(installed, entry, lambda: _find(entry), remember_success=False)


def refused(installed: Installed, reason: Refusal) -> PluginError:
    """The error for a plugin that may not be used."""
    return PluginError(f"the plugin {installed.package} {reason.reason}", hint=reason.fix)


def _admit(installed: Installed, entry: Entry, among: Environment | None) -> None:
    reason = refusal(installed, among)
    if reason is not None:
        _record(installed, entry, reason.status, reason=reason.reason, fix=reason.fix)
        raise refused(installed, reason)


def _resolve(entry: Entry) -> Any:
    module: Any = importlib.import_module(entry.module)
    if entry.attribute is None:
        value = module
    else:
        try:
            value = functools.reduce(getattr, entry.attribute.split("."), module)
        except AttributeError:
            raise NotOfferedError(f"the module {entry.module!r} has no {entry.attribute!r}") from None
    wrong = wrong_kind(entry.group, value)
    if wrong is not None:
        raise NotOfferedError(f"{entry.value!r} {wrong}")
    return value


def _find(entry: Entry) -> None:
    if importlib.util.find_spec(entry.module) is None:
        raise ModuleNotFoundError(f"No module named {entry.module!r}", name=entry.module)


def _attempt(installed: Installed, entry: Entry, work: Callable[[], Any], remember_success: bool = True) -> Any:
    """Runs an import under guard and records what became of it."""
    before = frozenset(sys.modules)
    seconds = settings().plugins.import_seconds
    watchdog = Watchdog(seconds)
    start = time.perf_counter()
    value: Any = None
    failure: BaseException | None = None
    try:
        with watchdog:
            value = work()
    # Foreign code: SystemExit and whatever else it raises is a failure of the plugin, not of its host.
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
    someone_elses = isinstance(failure, ImportTimeout) and not watchdog.expired
    if isinstance(failure, KeyboardInterrupt) or someone_elses:
        raise failure
    found = _endless(installed, seconds) if watchdog.expired else diagnose(failure, installed, entry)
    text = "".join(traceback.format_exception(failure))
    _record(installed, entry, Status.FAILED, reason=found.reason, fix=found.fix, exception=text, **spent)
    raise PluginError(
        f"the plugin {installed.package} failed to import {entry.value!r}: {found.reason}", hint=found.fix
    ) from failure


def _endless(installed: Installed, seconds: float) -> Diagnosis:
    return Diagnosis(
        f"its import did not end within {seconds:g} s",
        f"Leave it out (ATB_NO_PLUGINS={installed.distribution}) or upgrade it (pip install --upgrade"
        f" {installed.distribution}); ATB_PLUGIN_TIMEOUT sets another limit.",
    )


def _record(installed: Installed, entry: Entry, status: Status, **facts: Any) -> None:
    add_record(LoadRecord(installed.distribution, installed.version, installed.path, entry.target, status, **facts))


def _remove_modules(entry: Entry, before: frozenset[str]) -> None:
    """Takes what a failed import left of the plugin's package out of `sys.modules`.

    Python removes only the module that failed; the next attempt would find the others half set up. Modules of other
    packages stay: they were imported whole.
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
    # Defining an op registers it. Nothing is to forget where nobody has imported the ops.
    if ops := sys.modules.get("atb_core.graph.op"):
        ops.forget_ops(top)
