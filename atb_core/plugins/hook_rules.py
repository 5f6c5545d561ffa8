# SPDX-License-Identifier: Apache-2.0
"""Checks that what a plugin implements are hooks of this core, in the form that the core calls."""

from __future__ import annotations

import difflib

import pluggy

from atb_core.plugins import hookspecs

_MARK = "write `from atb_core.plugins import hookimpl`, and @hookimpl before each hook"


def implementations(plugin: object) -> dict[str, str]:
    """Returns attribute -> hook, for everything in a module or class that is marked with `hookimpl`."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    marks = {name: manager.parse_hookimpl_opts(plugin, name) for name in dir(plugin)}
    return {name: options.get("specname") or name for name, options in marks.items() if options is not None}


def hook_problem(plugin: object) -> str | None:
    """Returns what is wrong with the hooks of `plugin`, as the end of a sentence about it; `None` if nothing is.

    Calls none of them.
    """
    hooks = implementations(plugin)
    unmarked = [name for name in hookspecs.HOOKS if callable(getattr(plugin, name, None)) and name not in hooks]
    if unmarked:
        return f"has {unmarked[0]}, which is not marked with @hookimpl: {_MARK}"
    if not hooks:
        return f"implements no hook: {_MARK}; the hooks are {', '.join(hookspecs.HOOKS)}"
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs.SPECS)
    try:
        manager.register(plugin)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        unknown = sorted(set(hooks.values()) - set(hookspecs.HOOKS))
        return _unknown(unknown[0]) if unknown else f"implements a hook in another form: {' '.join(str(error).split())}"
    return None


def _unknown(hook: str) -> str:
    near = difflib.get_close_matches(hook, hookspecs.HOOKS, n=1, cutoff=0.0)[0]
    return (
        f"implements {hook}, which is no hook of this version; the nearest is {near} "
        f"(all: {', '.join(hookspecs.HOOKS)}; @hookimpl(optionalhook=True) allows for one that is missing)"
    )
