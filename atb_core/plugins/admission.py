# SPDX-License-Identifier: Apache-2.0
"""Decides before any import if a plugin may be used: by the settings, its metadata, its API version and requirements.

pip checks requirements while it installs and never again. After an upgrade of the core, an import of an old plugin
would fail somewhere in the middle; so its requirements are checked here, and the refusal gives the command that helps.
"""

from __future__ import annotations

import functools
import logging
import re
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from atb_core.errors import PluginError, printable
from atb_core.names import nearest, normalized_name
from atb_core.plugins.api import SUPPORTED_API_VERSIONS
from atb_core.plugins.once import Once
from atb_core.plugins.records import Refusal, Status
from atb_core.plugins.scan import Installed, environment
from atb_core.settings import PluginSettings, settings

if TYPE_CHECKING:
    from packaging.requirements import Requirement


_log = logging.getLogger(__name__)
_CORE = "atb-core"
_LONGEST_REQUIREMENT = 1000
# Python refuses to convert numbers of thousands of digits; no version has one of twenty.
_LONG_NUMBER = re.compile(r"\d{20}")
# A package that names no API version is taken to be written for this one.
_FIRST_API_VERSION = 1


def refusal(installed: Installed) -> Refusal | None:
    """Returns why a plugin is not used, or `None` if it may be; imports nothing of it."""
    if disabled := _disabled(installed, settings().plugins):
        return disabled
    if installed.problem is not None:
        fix = installed.fix or f"pip install --force-reinstall --no-deps {installed.distribution}"
        return Refusal(Status.FAILED, f"cannot be used: {installed.problem}", fix)
    return incompatibility(installed)


def incompatibility(installed: Installed) -> Refusal | None:
    """Returns why a plugin does not fit what is installed, or `None` if it fits.

    API versions are checked first, then `Requires-Dist` in its order. Requirements of extras, and those whose markers
    do not hold here, are left out. A core without metadata (a source tree on `PYTHONPATH`) has no version to check.
    """
    versions = installed.api_versions or (_FIRST_API_VERSION,)
    if not SUPPORTED_API_VERSIONS.intersection(versions):
        written, served = (" and ".join(map(str, sorted(some))) for some in (versions, SUPPORTED_API_VERSIONS))
        package = _CORE if min(versions) > max(SUPPORTED_API_VERSIONS) else installed.distribution
        return Refusal(
            Status.INCOMPATIBLE,
            f"is written for version {written} of the plugin API, and this atb-core has {served}",
            f"pip install --upgrade {package}",
        )
    problems = (_requirement_problem(installed, text) for text in installed.requires)
    reason, fix = next((problem for problem in problems if problem is not None), ("", ""))
    return Refusal(Status.INCOMPATIBLE, reason, fix) if reason else None


def check_names() -> None:
    """Warns once of settings that name a package which is not installed.

    Raises:
        PluginError: with `strict`.
    """
    for message, hint in unmatched_names():
        if settings().plugins.strict:
            raise PluginError(message, hint=hint)
        warn_once(f"{message}. {hint}")


def unmatched_names() -> Iterator[tuple[str, str]]:
    """Yields, for each name in the settings that is not installed, a sentence and the next step."""
    plugins = settings().plugins
    sources = {**dict.fromkeys(sorted(plugins.only or ()), plugins.only_source), **plugins.disabled}
    sources.pop("all", None)
    for model_type, name in plugins.prefer.items():
        sources.setdefault(name, plugins.prefer_sources[model_type])
    among = environment()
    keys = [one.key for one in among.installed]
    for name, source in sources.items():
        if name in keys:
            continue
        present = name in among
        fault = "is no plugin: it has no entry points for atb-core" if present else "is not installed"
        install = "Correct the name." if present else f"Correct the name, or install it (pip install {name})."
        hint = nearest("all" if name == "1" else normalized_name(name), ["all", *keys], install)
        yield f"{source} names {name}, which {fault}", hint


@Once
def _warnings() -> set[str]:
    return set()


def warn_once(message: str) -> None:
    """Logs a warning unless this process has logged it before; without any set-up that is a line on stderr."""
    message = printable(message, 4000)
    if message not in _warnings():
        _warnings().add(message)
        _log.warning("%s", message)


def _disabled(installed: Installed, plugins: PluginSettings) -> Refusal | None:
    for name in (installed.key, "all"):
        if source := plugins.disabled.get(name):
            return Refusal(Status.DISABLED, f"is disabled by {source}", f"Take {name} out of {source} to use it.")
    if plugins.only is not None and installed.key not in plugins.only:
        reason = f"is left out by {plugins.only_source}, which does not name it"
        return Refusal(Status.DISABLED, reason, f"Add {installed.distribution} to {plugins.only_source} to use it.")
    return None


def _requirement_problem(installed: Installed, text: str) -> tuple[str, str] | None:
    """Returns reason and fix if what is installed does not meet the requirement `text`."""
    upgrade = f"pip install --upgrade {installed.distribution}"
    requirement = parsed_requirement(text)
    if requirement is None:
        return f"has an invalid requirement: {printable(text, 100)!r}", upgrade
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return None
    wanted = _wanted(requirement)
    install = f"pip install {shlex.quote(wanted)}"
    is_core = normalized_name(requirement.name) == _CORE
    among = environment()
    version = among.version(requirement.name)
    if version is None:
        without_version = is_core or requirement.name in among
        return None if without_version else (f"requires {wanted}, which is not installed", install)
    if _satisfies(requirement, version):
        return None
    too_new = is_core and _is_above(requirement, version)
    return f"requires {wanted}, and {requirement.name} {version} is installed", upgrade if too_new else install


# Plugins repeat each other's requirements, and parsing is the slow part.
@functools.lru_cache(maxsize=1024)
def parsed_requirement(text: str) -> Requirement | None:
    """Returns a requirement; `None` if it is invalid or too long, or its marker compares what cannot be compared."""
    from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
    from packaging.requirements import Requirement

    if len(text) > _LONGEST_REQUIREMENT or not text.isprintable() or _LONG_NUMBER.search(text):
        return None
    try:
        requirement = Requirement(text)
        if requirement.marker is not None:
            requirement.marker.evaluate({"extra": ""})
    except (ValueError, LookupError, UndefinedComparison, UndefinedEnvironmentName, RecursionError):
        return None
    return requirement


def _wanted(requirement: Requirement) -> str:
    """Returns the requirement as pip takes it, without its marker: `atb-core>=0.2,<0.3`."""
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    if requirement.url:
        return f"{requirement.name}{extras} @ {requirement.url}"
    # Lower bounds first, as people write them; the order in packaging is that of a set.
    clauses = sorted(map(str, requirement.specifier), key=lambda clause: (clause[0] not in ">=~", clause))
    return f"{requirement.name}{extras}{','.join(clauses)}"


def _satisfies(requirement: Requirement, version: str) -> bool:
    """Returns true for a matching version; a prerelease of the core also counts as the release that it precedes."""
    from packaging.version import Version

    try:
        parsed = Version(version)
    except ValueError:
        return True  # not comparable: the import decides
    specifier = requirement.specifier
    early_core = parsed.is_prerelease and normalized_name(requirement.name) == _CORE
    versions = [parsed, Version(parsed.base_version)] if early_core else [parsed]
    return any(specifier.contains(one, prereleases=True) for one in versions)


def _is_above(requirement: Requirement, version: str) -> bool:
    """Returns true if `version` is newer than everything that the requirement admits."""
    from packaging.version import Version

    for clause in requirement.specifier:
        if clause.contains(version, prereleases=True):
            continue
        if clause.operator in ("<", "<="):
            return True
        if clause.operator in ("==", "~=") and Version(version) > Version(clause.version.removesuffix(".*")):
            return True
    return False
