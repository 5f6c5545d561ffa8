# SPDX-License-Identifier: Apache-2.0
"""Fills the extension points of the layers with what installed plugins contribute; provider of `atb_core.extensions`.

pluggy keeps the implementations; `hook_manager` adds the rest: a plugin's module is imported when a hook is first
needed, an implementation that fails or returns anything but the expected list is recorded and warned of once while all
others go on, and every contribution has an owner.
"""

from __future__ import annotations

from typing import Any

from atb_core.extensions import Contribution, Extensions, Owner
from atb_core.plugins.hook_manager import Hooks
from atb_core.plugins.once import Once
from atb_core.plugins.scan import HOOKS
from atb_core.settings import settings

__all__ = ["contributions", "failed", "failures", "register_hooks"]


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
    _hooks().register(plugin, Owner(name, version, target=f"{HOOKS}: registered as {name}"))


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
    return f" These plugins failed and may offer it: {names} (`atb plugins doctor` says why)." if names else ""


@Once
def _hooks() -> Hooks:
    return Hooks()
