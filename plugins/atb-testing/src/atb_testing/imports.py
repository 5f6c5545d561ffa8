# SPDX-License-Identifier: Apache-2.0
"""Measures in fresh interpreters the time of importing a family's package and the libraries that it imports."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atb_core.errors import PluginError
from atb_core.plugins.registry import CONFIGS, ROUTERS, Family

#: Seconds that an import of package, router and configuration may take in addition to that of atb_core.
BUDGET_SECONDS = 0.05
#: Libraries that listing and routing must not load.
HEAVY = ("torch", "transformers")
_RUNS = 5

_SCRIPT = """
import importlib, json, sys, time
request = json.loads(sys.argv[1])
culprits = {}

class Watch:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in request["heavy"] and name not in culprits:
            frame, lines = sys._getframe(1), []
            while frame is not None:
                module = frame.f_globals.get("__name__", "")
                lines.append((module.split(".")[0] == request["package"], module, frame))
                frame = frame.f_back
            own = [entry for entry in lines if entry[0]]
            other = [entry for entry in lines if not entry[1].startswith("importlib") and entry[2].f_code.co_filename[0] != "<"]
            frame = (own or other or lines)[0][2]
            culprits[name] = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        return None

for name in request["first"]:
    importlib.import_module(name)
sys.meta_path.insert(0, Watch)
before = set(sys.modules)
start = time.perf_counter()
for name in request["modules"]:
    importlib.import_module(name)
seconds = time.perf_counter() - start
file = sys.modules[request["package"]].__file__
answer = {"seconds": seconds, "new": sorted(set(sys.modules) - before), "culprits": culprits, "file": file}
with open(request["answer"], "w") as out:
    json.dump(answer, out)
"""  # noqa: E501


@dataclass(frozen=True)
class ImportReport:
    """Describes an import of a family's package, router and configuration.

    Attributes:
        modules: the imported modules.
        file: the package's `__init__.py` as a fresh interpreter finds it.
        heavy: libraries of `HEAVY` that were imported, with the line that imports each.
        seconds: the time in addition to that of atb_core, the best of several runs.
    """

    modules: tuple[str, ...]
    file: str | None
    heavy: dict[str, str]
    seconds: float


def import_report(family: Family) -> ImportReport:
    """Imports the modules of `light_modules` in fresh interpreters, outside the current directory.

    Raises:
        PluginError: they cannot be imported; with the traceback.
    """
    modules = light_modules(family)
    survey = _run(modules, ["atb_core"])
    core = [name for name in survey["new"] if name.partition(".")[0] == "atb_core"]
    # The core's own modules, and what they import, are not counted.
    best = min(_run(modules, ["atb_core", *core])["seconds"] for _ in range(_RUNS))
    return ImportReport(tuple(modules), survey["file"], survey["culprits"], best)


def light_modules(family: Family) -> list[str]:
    """Returns the package and the modules of its router and configuration."""
    values = [family.objects[group] for group in (ROUTERS, CONFIGS) if group in family.objects]
    modules = [value.partition(":")[0] for value in values]
    return list(dict.fromkeys([package_of(family), *modules]))


def package_of(family: Family) -> str:
    """Returns the import name of the family's package."""
    return family.objects[ROUTERS].partition(":")[0].partition(".")[0]


def _run(modules: Sequence[str], first: Sequence[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as elsewhere:
        # A file, because anything may print, also when Python starts or ends.
        file = Path(elsewhere, "answer.json")
        request = {"package": modules[0], "modules": modules, "first": first, "heavy": HEAVY, "answer": str(file)}
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT, json.dumps(request)],
            cwd=elsewhere,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not file.exists():
            raise PluginError(f"{', '.join(modules)} cannot be imported in a fresh interpreter:\n{done.stderr}")
        answer: dict[str, Any] = json.loads(file.read_bytes())
    return answer
