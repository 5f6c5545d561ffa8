# SPDX-License-Identifier: Apache-2.0
"""Tells on stderr that code of a plugin takes long, because it might never end."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Iterator

from atb_core.settings import settings

_log = logging.getLogger(__name__)
_SECONDS = 20.0
#: Tells a process of its own that a call begins, with the seconds that it may take and the text that is then said, or
#: (0, "") that the last one has ended. A program may set it: code in C that holds the interpreter's lock stops every
#: thread. Only the main thread calls it.
tell_watcher: Callable[[float, str], None] | None = None


@contextlib.contextmanager
def told_if_slow(what: str, distribution: str) -> Iterator[None]:
    """Tells that `what` takes long, once, when it has taken 20 s or `ATB_PLUGIN_TIMEOUT`; only the user can end it."""
    seconds = min(_SECONDS, settings().plugins.import_seconds)
    text = (
        f"{what} takes more than {seconds:g} s. Ctrl-C interrupts it, or else Ctrl-\\; "
        f"ATB_NO_PLUGINS={distribution} leaves the plugin out."
    )
    end: Callable[[], None]
    if tell_watcher is not None and threading.current_thread() is threading.main_thread():
        tell_watcher(seconds, text)
        end = functools.partial(tell_watcher, 0, "")
    else:
        timer = threading.Timer(seconds, _log.warning, ("%s", text))
        timer.daemon = True
        timer.start()
        end = timer.cancel
    try:
        yield
    finally:
        end()
