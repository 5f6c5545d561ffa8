# SPDX-License-Identifier: Apache-2.0
"""Names the plugin in what its code raises, where a layer calls code of plugins."""

from __future__ import annotations

import contextlib
import traceback
from typing import Any

from atb_core.errors import AtbError, PluginError, error_text
from atb_core.extensions import Owner, provider

# What the project's own code is, beside the code of plugins.
_CORE = frozenset({"atb_core", "atb_cli"})
_ROOM = "Check that the path exists, that you may use it, and that its disk has room."
_REPORT = "Report it to the plugin's author with the traceback, which atb prints with --traceback."


def blame(error: BaseException, owner: Owner | None = None, skip_core: bool = False) -> tuple[Owner, str] | None:
    """Returns the plugin whose code raised an error, and where: ` (FILE, line N)`; `None` if it is the core's.

    The innermost function that is the core's or a plugin's decides. `owner` is the plugin that was called, if the
    caller knows it, which also counts for code without a file. `skip_core` looks for the plugin that called the core.
    """
    frames = list(traceback.walk_tb(error.__traceback__))
    for depth, (frame, line) in reversed(list(enumerate(frames))):
        module = str(frame.f_globals.get("__name__"))
        top = module.partition(".")[0]
        if top in _CORE:
            if skip_core:
                continue
            return (owner, "") if owner is not None and depth == 0 else None
        ours = owner is not None and top == owner.module.partition(".")[0]
        if found := owner if ours else provider().owner_of(module):
            return found, f" ({frame.f_code.co_filename}, line {line})"
    return None if owner is None else (owner, "")


def plugin_error(
    error: BaseException,
    owner: Owner | None = None,
    what: str = "",
    kind: type[AtbError] = PluginError,
    hint: str = _REPORT,
) -> AtbError | None:
    """Returns what the code of a plugin raised as an error of a `kind` that names the plugin, the file and the line.

    Returns `None` for the core's own bugs, for an `AtbError`, which has its message, and for an interrupt.

    Args:
        error: what was raised.
        owner: the plugin that was called, if the caller knows it.
        what: what failed; by default the plugin.
        kind: the class of the result.
        hint: the next step, unless the system is the cause.
    """
    passing = (AtbError, KeyboardInterrupt, GeneratorExit, BrokenPipeError)
    blamed = None if isinstance(error, passing) else blame(error, owner)
    if blamed is None:
        return None
    failed = "failed"
    if isinstance(error, OSError):
        failed, hint = "met an error of the system", _ROOM
    return kind(f"{what or f'the plugin {blamed[0]}'} {failed}: {error_text(error)}{blamed[1]}", hint=hint)


class plugin_errors(contextlib.ContextDecorator):
    """Raises what the code of a plugin raises within as an error with its cause; see `plugin_error`.

    A class, because a generator would take microseconds of every step.
    """

    def __init__(self, owner: Owner | None = None, *options: Any) -> None:
        self.options = (owner, *options)

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, place: object) -> None:
        if error is not None and (failure := plugin_error(error, *self.options)):
            raise failure from error
