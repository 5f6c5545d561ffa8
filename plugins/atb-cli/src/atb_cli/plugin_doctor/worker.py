# SPDX-License-Identifier: Apache-2.0
"""Imports plugins on request, each in a process forked for it, so that none sees the imports of another.

A fork takes 0.03 s. A fresh interpreter that imports torch and the bases of models takes 1.7 s of processor time, which
would be five minutes for 200 plugins; with forks they are examined in less than one.

A request is a line of JSON: `path` (of the plugin's metadata), `targets` (the entry points to import) and `heavy`:
torch and the bases of models are imported before the fork, so that their time is not the plugin's. The answers are
`{"ready": true}`, a line `{"record": ...}` for each entry point, `{"incomplete": ...}` for a family that lacks a part,
`{"threads": number}` if some keep the process from ending,
`{"done": true}` unless an import ended the process, whatever its exit status, and a last one
`{"ended": [exit status, last line printed]}`; or `{"trouble": ...}`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import resource
import threading
from collections.abc import Callable
from typing import Any, Final

from atb_core.child import last_line, serve
from atb_core.errors import PluginError
from atb_core.plugins.loader import load_entry
from atb_core.plugins.records import Status, records
from atb_core.plugins.registry import registry
from atb_core.plugins.scan import ROUTERS, Installed, installed
from atb_core.plugins.torch_import import protect_torch_import

#: Bytes that the import of a plugin may allocate.
MEMORY: Final = 4 << 30
# Imported by the routers, configurations and hook modules of any family.
_LIGHT: Final = ("atb_core.models.base.router", "atb_core.models.base.config")
_HEAVY: Final = ("torch", "atb_core.models.base.flash_causal_lm_v3", "atb_core.models.base.modeling_python")


def main() -> None:
    """Serves requests until the parent ends."""
    for module in _LIGHT:
        importlib.import_module(module)
    protect_torch_import()  # scans once for all forks
    serve(_serve)


def _serve(request: dict[str, Any], answer: Callable[[object], None]) -> None:
    try:
        for module in _HEAVY if request["heavy"] else ():
            if module != "torch" or importlib.util.find_spec(module) is not None:
                importlib.import_module(module)
    except Exception as error:
        answer({"trouble": f"{_HEAVY[0]} cannot be imported: {type(error).__name__}: {error}"})
        return
    os.ftruncate(2, 0)
    os.lseek(2, 0, os.SEEK_SET)
    answer({"ready": True})
    child = os.fork()
    if child == 0:
        try:
            _import_all(request, answer)
            answer({"done": True})
        finally:
            # Exit handlers, and anything else that a plugin left behind, must not run here.
            os._exit(0)
    _, status = os.waitpid(child, 0)
    answer({"ended": [os.waitstatus_to_exitcode(status), last_line(2)]})


def _import_all(request: dict[str, Any], answer: Callable[[object], None]) -> None:
    """Loads each entry point as a process that needs it would; the outcome is in the records."""
    _limit_memory()
    [plugin] = [plugin for plugin in installed() if str(plugin.path) == request["path"]]
    for entry in plugin.entries:
        if entry.target in request["targets"]:
            with contextlib.suppress(PluginError):
                load_entry(plugin, entry)
            answer({"record": {**dataclasses.asdict(records()[-1]), "path": str(plugin.path)}})
    left = sum(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread())
    if left:
        answer({"threads": left})
    if not request["heavy"] and all(record.status is Status.OK for record in records()):
        _check_complete(plugin, answer)


def _limit_memory() -> None:
    """Limits the memory that this process can still allocate to `MEMORY`; modules mapped from files do not count."""
    with open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_DATA, (used + MEMORY, used + MEMORY))


def _check_complete(plugin: Installed, answer: Callable[[object], None]) -> None:
    """Answers for each family whose parts all load that one of them is missing, if it is."""
    for family in registry().families():
        if family.distribution == plugin.distribution and family.status is Status.OK:
            try:
                registry().load(family, ROUTERS)
            except PluginError as error:
                answer({"incomplete": {"message": error.message, "fix": error.hint}})
