# SPDX-License-Identifier: Apache-2.0
"""Imports plugins on request, each in a process forked for it, so that none sees what another has imported.

A request is a line of JSON: `path` (of the plugin's metadata), `targets` (the entry points to import) and `heavy`:
whether torch and the bases of models are imported before the fork, so that their time is not the plugin's.
The answer is a line `{"record": ...}` for each entry point, `{"incomplete": ...}` for a family that lacks a part, and
a last one `{"ended": ..., "output": ...}`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import tempfile
from typing import IO, Any, Final

from atb_core.plugins.records import Status
from atb_core.plugins.scan import ROUTERS, Installed, installed
from atb_core.plugins.torch_import import protect_torch_import

# What a router, a configuration or a hook module of any family imports.
_LIGHT: Final = ("atb_core.models.base.router", "atb_core.models.base.config", "atb_core.plugins.registry")
_HEAVY: Final = ("torch", "atb_core.models.base.flash_causal_lm_v3", "atb_core.models.base.modeling_python")
_OUTPUT_CHARACTERS: Final = 200


def main() -> None:
    """Serves requests from standard input until it ends."""
    requests, answers = _private_pipes()
    _preload(_LIGHT)
    protect_torch_import()  # and so scanned once for all that are forked
    with tempfile.TemporaryFile() as printed:
        # What a plugin prints while it is imported must not be taken for an answer.
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
        for line in requests:
            _serve(json.loads(line), answers, printed)


def _private_pipes() -> tuple[IO[str], IO[str]]:
    """Standard input and output under numbers that no plugin knows of."""
    requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    return requests, answers


def _preload(modules: tuple[str, ...]) -> None:
    for module in modules:
        importlib.import_module(module)


def _serve(request: dict[str, Any], answers: IO[str], printed: IO[bytes]) -> None:
    try:
        if request["heavy"]:
            _preload(_HEAVY)
    except Exception as error:
        return _say(answers, {"trouble": f"{_HEAVY[0]} cannot be imported: {type(error).__name__}: {error}"})
    printed.seek(0)
    printed.truncate()
    _say(answers, {"ready": True})
    child = os.fork()
    if child == 0:
        try:
            _import_all(request, answers)
        finally:
            # Neither exit handlers nor whatever else a plugin left behind may run here.
            os._exit(0)
    _, status = os.waitpid(child, 0)
    _say(answers, {"ended": os.waitstatus_to_exitcode(status), "output": _last_line(printed)})


def _import_all(request: dict[str, Any], answers: IO[str]) -> None:
    """Loads each entry point as a process that needs it would; what became of it is in the records."""
    from atb_core.errors import PluginError
    from atb_core.plugins.loader import load_entry
    from atb_core.plugins.records import records

    [plugin] = [plugin for plugin in installed() if str(plugin.path) == request["path"]]
    for entry in plugin.entries:
        if entry.target in request["targets"]:
            with contextlib.suppress(PluginError):
                load_entry(plugin, entry)
            _say(answers, {"record": dataclasses.asdict(records()[-1])})
    if not request["heavy"] and all(record.status is Status.OK for record in records()):
        _check_whole(plugin, answers)


def _check_whole(plugin: Installed, answers: IO[str]) -> None:
    """Says of each family whose parts all load that one of them is missing, if it is."""
    from atb_core.errors import PluginError
    from atb_core.plugins.registry import registry

    for family in registry().families():
        if family.distribution == plugin.distribution and family.status is Status.OK:
            try:
                registry().load(family, ROUTERS)
            except PluginError as error:
                _say(answers, {"incomplete": {"message": error.message, "fix": error.hint}})


def _say(answers: IO[str], answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer, default=str) + "\n")
    answers.flush()


def _last_line(printed: IO[bytes]) -> str:
    printed.seek(0)
    lines = printed.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1][-_OUTPUT_CHARACTERS:] if lines else ""
