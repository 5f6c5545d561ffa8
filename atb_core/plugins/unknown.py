# SPDX-License-Identifier: Apache-2.0
"""Makes the error for a model that no usable family serves: which of the possible reasons it is, and what to do."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from pathlib import Path

from atb_core.errors import UnknownModelError, printable
from atb_core.names import command, pip_install
from atb_core.plugins.records import Family, Status
from atb_core.plugins.scan import environment

# A longer list would push the cause off the screen.
_LISTED = 12


@functools.cache
def known_families() -> dict[str, str]:
    """Returns the packages that could be installed, by the model types that they serve."""
    path = Path(__file__).with_name("known_families.json")
    packages: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return packages


def unknown_model(model_type: str, claims: Sequence[Family], families: Sequence[Family]) -> UnknownModelError:
    """Returns the error for a model type that no usable family serves.

    Args:
        model_type: of the checkpoint.
        claims: the installed families that would serve it, none of them usable.
        families: all installed families.
    """
    if claims:
        return _unusable(model_type, claims)
    shown = printable(model_type, 100)
    package = known_families().get(model_type)
    served = _served(families)
    if package is None:
        guess = "atb-" + re.sub(r"[^a-z0-9]+", "-", shown.lower()).strip("-")
        return UnknownModelError(
            f"no installed package serves the model type {shown!r}, and this atb-core knows of none that does;"
            f" {served}",
            hint=f"If there is one, the convention would call it {guess}: look at it before you install it."
            f" {command('plugins new')} starts one of your own.",
        )
    if package in environment():
        return UnknownModelError(
            f"{package} {environment().version(package) or ''} is installed and does not serve the model type"
            f" {shown!r}; another version of it does; {served}",
            hint=f"pip install --upgrade {package}",
        )
    return UnknownModelError(
        f"the model type {shown!r} is served by {package}, which is not installed; {served}", hint=pip_install(package)
    )


def _unusable(model_type: str, claims: Sequence[Family]) -> UnknownModelError:
    causes = "; ".join(f"{family.package} {family.reason}" for family in claims)
    words = {Status.DISABLED: "disabled", Status.INCOMPATIBLE: "incompatible", Status.FAILED: "broken"}
    kinds = " or ".join(dict.fromkeys(words[family.status] for family in claims))
    return UnknownModelError(
        f"the model type {model_type!r} is served by an installed package that is {kinds}: {causes}", hint=claims[0].fix
    )


def _served(families: Sequence[Family]) -> str:
    usable = [f"{family.model_type} ({family.package})" for family in families if family.status is Status.OK]
    if not usable:
        return "no usable family is installed" if families else "no family is installed"
    more = f" and {len(usable) - _LISTED} more ({command('list')})" if len(usable) > _LISTED else ""
    return f"installed families: {', '.join(usable[:_LISTED])}{more}"
