# SPDX-License-Identifier: Apache-2.0
"""Reaches further distributions of this project, which users install beside the core."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

from atb_core.errors import RequestError
from atb_core.names import pip_install


def version_of(distribution: str) -> str | None:
    """Returns the version of an installed distribution; `None` if it is not installed or its metadata is damaged."""
    from importlib.metadata import version  # takes 20 ms

    try:
        # Damaged metadata gives None where the annotation promises a string.
        return version(distribution) or None
    except (ImportError, KeyError, ValueError, OSError):
        return None


def of_distribution(module: str, name: str) -> Any:
    """Returns what a further distribution of this project has in a module, for a module of the core that leads there.

    Raises:
        ImportError: the distribution is not installed; has the line for pip.
    """
    if name.startswith("_"):
        raise AttributeError(f"module {module!r} has no public attribute {name!r}")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name != package:
            raise
        own = package.replace("_", "-")
        reason = f"{name} is in the distribution {own}, which is not installed"
        raise ImportError(f"{reason}: {pip_install(own)}", name=package) from error


def needed_package(package: str, purpose: str) -> Any:
    """Returns the imported package of a further distribution; RequestError, which says what needs it, without it."""
    if find_spec(package) is None:
        own = package.replace("_", "-")
        raise RequestError(f"{purpose} the package {own}", hint=pip_install(own))
    return importlib.import_module(package)
