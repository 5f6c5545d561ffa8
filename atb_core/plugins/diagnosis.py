# SPDX-License-Identifier: Apache-2.0
"""Explains a failed import to the person who installed the plugin: a sentence, and the command that helps."""

from __future__ import annotations

import re
import shlex

from atb_core.errors import error_text
from atb_core.names import normalized_name
from atb_core.plugins.scan import Entry, Installed

#: The extra that a requirement belongs to.
EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")


class NotOfferedError(Exception):
    """Reports that an imported module lacks what the entry point names, or that it is of the wrong kind."""


def diagnose(error: BaseException, installed: Installed, entry: Entry) -> tuple[str, str]:
    """Returns why importing `entry` raised `error`, and the next step."""
    reinstall = f"pip install --force-reinstall --no-deps {installed.distribution}"
    upgrade = f"pip install --upgrade {installed.distribution}"
    if isinstance(error, NotOfferedError):
        return str(error), upgrade
    if isinstance(error, ModuleNotFoundError) and error.name:
        if entry.module == error.name or entry.module.startswith(f"{error.name}."):
            return f"there is no module {error.name!r}, which its entry point names", reinstall
        if error.name.split(".")[0] == entry.module.split(".")[0]:
            return f"its own module {error.name!r} is missing", reinstall
        if error.name.startswith("atb_core."):
            return f"it imports {error.name!r}, which this atb-core does not have", upgrade
        return _missing_module(error.name, installed)
    if isinstance(error, ImportError) and (error.name or "").split(".")[0] == "atb_core":
        return f"it imports what this atb-core does not have: {error_text(error)}", upgrade
    if isinstance(error, SystemExit):
        return f"its import ends the program ({error_text(error)})", upgrade
    return error_text(error), upgrade


def _missing_module(module: str, installed: Installed) -> tuple[str, str]:
    """Returns reason and fix for a dependency that is not installed: its requirement, or the module itself."""
    top = module.split(".")[0]
    reason = f"it needs the module {module!r}, which is not installed"
    for text in installed.requires:
        requirement, _, marker = (part.strip() for part in text.partition(";"))
        name = re.match(r"[\w.-]+", requirement)
        if name is not None and normalized_name(name[0]) == normalized_name(top):
            extra = EXTRA.search(marker)
            return (
                reason,
                f"pip install {shlex.quote(f'{installed.distribution}[{extra[1]}]' if extra else requirement)}",
            )
    return (
        f"{reason} and which {installed.distribution} does not declare as a requirement",
        f"Install the package that provides {top} (often pip install {top}), or pip install --upgrade"
        f" {installed.distribution}.",
    )
