# SPDX-License-Identifier: Apache-2.0
"""Imports what one entry point of a plugin names, and records the outcome.

Any failure of the import (an exception, an exit, a missing dependency) ends in a record and, for the caller, in a
PluginError that names the package. An import runs in this process and is trusted: one that ends the process, or never
ends, does so; `atb plugins doctor` imports in processes of their own and finds it.
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
from atb_core.plugins.once import Once
from atb_core.plugins.records import LoadRecord, Status, add_record
from atb_core.plugins.scan import CONFIGS, CPP_MODELS, HOOKS, MODELS, ROUTERS, Entry, Installed
from atb_core.plugins.slow_calls import told_if_slow
from atb_core.plugins.torch_import import protect_torch_import

# By group: the module and name of the class that everything in it derives from, and what messages call a subclass.
_BASES = {
    ROUTERS: ("atb_core.models.base.router", "BaseRouter", "a subclass of BaseRouter"),
    CONFIGS: ("atb_core.models.base.config", "BaseConfig", "a subclass of BaseConfig"),
    MODELS: (
        "atb_core.models.base.flash_causal_lm_v3",
        "CausalLM",
        "a subclass of FlashCausalLMV3 under @torch_to_mindie_graph()",
    ),
    CPP_MODELS: ("atb_cpp_models.registration", "CppModel", "a CppModel"),
}


@Once
def _loaded() -> dict[tuple[str, str], Any]:
    """Returns what has been loaded, by metadata path and entry point."""
    return {}


def load_entry(installed: Installed, entry: Entry) -> Any:
    """Returns the object that an entry point leads to: a module, or something in it.

    The first success is kept and recorded; a failure is recorded, and tried again by the next call.

    Raises:
        PluginError: the plugin is disabled or incompatible, its import fails, or it has not what the group needs.
            Gives package, version, cause and next step.
    """
    key = (str(installed.path), entry.target)
    if key not in _loaded():
        _admit(installed, entry)
        protect_torch_import()
        _loaded()[key] = _attempt(installed, entry, _resolve)
    return _loaded()[key]


def check_module(installed: Installed, entry: Entry) -> None:
    """Finds the module of an entry point without running it (the packages above it are imported).

    For modules that are expensive to import. Leaves a record only of a failure. Errors: see `load_entry`.
    """
    if (str(installed.path), entry.target) not in _loaded():
        _admit(installed, entry)
        _attempt(installed, entry, _find, remember_success=False)


def _admit(installed: Installed, entry: Entry) -> None:
    if refused := refusal(installed):
        _record(installed, entry, refused.status, reason=refused.reason, fix=refused.fix)
        raise PluginError(f"the plugin {installed.package} {refused.reason}", hint=refused.fix)


def _resolve(entry: Entry) -> Any:
    value: Any = importlib.import_module(entry.module)
    if entry.attribute is not None:
        try:
            value = functools.reduce(getattr, entry.attribute.split("."), value)
        except AttributeError:
            raise NotOfferedError(f"the module {entry.module!r} has no {entry.attribute!r}") from None
    if wrong := _wrong_kind(entry.group, value):
        raise NotOfferedError(f"{entry.value!r} {wrong}")
    return value


def _wrong_kind(group: str, value: object) -> str | None:
    """Returns why `value` cannot serve in `group`, as the end of a sentence about it; `None` if it can.

    Imports no base class (and so no torch): nothing derives from a class that has not been imported.
    """
    if group == HOOKS:
        from atb_core.plugins.hook_rules import hook_problem  # imports pluggy

        return hook_problem(value)
    if group not in _BASES:
        return None
    module, name, words = _BASES[group]
    base = getattr(sys.modules.get(module), name, None)
    if group == CPP_MODELS:
        is_model = base is not None and isinstance(value, base)
        return None if is_model else f"is a {type(value).__name__}, where {group} needs {words}"
    if not isinstance(value, type):
        return f"is a {type(value).__name__}, where {group} needs a class, {words}"
    return None if base is not None and issubclass(value, base) else f"is not {words}, which {group} needs"


def _find(entry: Entry) -> None:
    if importlib.util.find_spec(entry.module) is None:
        raise ModuleNotFoundError(f"No module named {entry.module!r}", name=entry.module)


def _attempt(installed: Installed, entry: Entry, work: Callable[[Entry], Any], remember_success: bool = True) -> Any:
    before = frozenset(sys.modules)
    start = time.perf_counter()
    value: Any = None
    failure: BaseException | None = None
    try:
        with told_if_slow(f"importing {entry.value!r} of the plugin {installed.package}", installed.distribution):
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
    if isinstance(failure, KeyboardInterrupt):
        raise failure
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
