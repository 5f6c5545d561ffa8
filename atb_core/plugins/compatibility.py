# SPDX-License-Identifier: Apache-2.0
"""Whether an installed plugin fits what it is installed beside.

pip checks requirements while it installs and never again: who upgrades the core beneath a plugin gets a line on
stderr, and later an error from the middle of an import. So they are checked here once more, before anything is
imported, and the answer is the command that puts it right.
"""

from __future__ import annotations

import functools
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atb_core.names import normalized_name
from atb_core.plugins.api import SUPPORTED_API_VERSIONS
from atb_core.plugins.scan import Environment, Installed, environment

if TYPE_CHECKING:
    from packaging.requirements import Requirement

__all__ = ["CORE", "Problem", "check"]

CORE = "atb-core"
# What a package is taken to be written for that does not say.
_FIRST_API_VERSION = 1


@dataclass(frozen=True)
class Problem:
    """Why a plugin cannot be used with what is installed.

    Attributes:
        reason: a sentence's end, after the package's name: `requires atb-core>=0.2, and atb-core 0.1.0 is installed`.
        fix: the command that puts it right.
    """

    reason: str
    fix: str


def check(installed: Installed, among: Environment | None = None) -> Problem | None:
    """The first thing that keeps a plugin from fitting, or `None`; imports nothing of it.

    Args:
        among: what is installed; by default on `sys.path`.

    API versions come first, then `Requires-Dist` in its order. Requirements of extras, and those whose markers do not
    hold here, are left out. A core without metadata (a source tree on `PYTHONPATH`) has no version to check against.
    """
    among = environment() if among is None else among
    problem = _api_problem(installed)
    if problem is not None:
        return problem
    for text in installed.requires:
        problem = _requirement_problem(installed, text, among)
        if problem is not None:
            return problem
    return None


def _api_problem(installed: Installed) -> Problem | None:
    versions = installed.api_versions or (_FIRST_API_VERSION,)
    if SUPPORTED_API_VERSIONS.intersection(versions):
        return None
    written = " and ".join(map(str, versions))
    served = " and ".join(map(str, sorted(SUPPORTED_API_VERSIONS)))
    newer = min(versions) > max(SUPPORTED_API_VERSIONS)
    package = CORE if newer else installed.distribution
    return Problem(
        f"is written for version {written} of the plugin API, and this atb-core offers {served}",
        f"pip install --upgrade {package}",
    )


def _requirement_problem(installed: Installed, text: str, among: Environment) -> Problem | None:
    requirement = _parsed(text)
    applies = requirement is not None and _applies(requirement)
    if requirement is None or applies is None:
        return Problem(
            f"states a requirement that cannot be read: {text!r}", f"pip install --upgrade {installed.distribution}"
        )
    if not applies:
        return None
    wanted = _wanted(requirement)
    version = among.version(requirement.name)
    if version is None:
        if requirement.name in among or normalized_name(requirement.name) == CORE:
            return None
        return Problem(f"requires {wanted}, which is not installed", f"pip install {shlex.quote(wanted)}")
    if _satisfies(requirement, version):
        return None
    reason = f"requires {wanted}, and {requirement.name} {version} is installed"
    if normalized_name(requirement.name) == CORE and _is_above(requirement, version):
        return Problem(reason, f"pip install --upgrade {installed.distribution}")
    return Problem(reason, f"pip install {shlex.quote(wanted)}")


# Plugins repeat each other's requirements, and parsing is the slow part.
@functools.lru_cache(maxsize=1024)
def _parsed(text: str) -> Requirement | None:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        return Requirement(text)
    except InvalidRequirement:
        return None


def _applies(requirement: Requirement) -> bool | None:
    """Whether the marker holds here, outside of any extra; `None`: it compares what cannot be compared."""
    from packaging.markers import UndefinedComparison, UndefinedEnvironmentName

    try:
        return requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    except (UndefinedComparison, UndefinedEnvironmentName):
        return None


def _wanted(requirement: Requirement) -> str:
    """The requirement as pip takes it, without its marker: `atb-core>=0.2,<0.3`."""
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    if requirement.url:
        return f"{requirement.name}{extras} @ {requirement.url}"
    # Lower bounds first, as people write them; packaging's order is that of a set.
    clauses = sorted(map(str, requirement.specifier), key=lambda clause: (clause[0] not in ">=~", clause))
    return f"{requirement.name}{extras}{','.join(clauses)}"


def _satisfies(requirement: Requirement, version: str) -> bool:
    """A prerelease of the core counts as the release that it precedes, as well as for itself."""
    from packaging.version import InvalidVersion, Version

    try:
        parsed = Version(version)
    except InvalidVersion:
        # Nothing can be said about it; an import will tell.
        return True
    specifier = requirement.specifier
    if specifier.contains(parsed, prereleases=True):
        return True
    early = parsed.is_prerelease and normalized_name(requirement.name) == CORE
    return early and specifier.contains(parsed.base_version, prereleases=True)


def _is_above(requirement: Requirement, version: str) -> bool:
    """Whether `version` is newer than anything the requirement admits."""
    from packaging.version import Version

    for clause in requirement.specifier:
        if clause.contains(version, prereleases=True):
            continue
        if clause.operator in ("<", "<="):
            return True
        if clause.operator in ("==", "~=") and Version(version) > Version(clause.version.removesuffix(".*")):
            return True
    return False
