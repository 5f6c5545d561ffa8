# SPDX-License-Identifier: Apache-2.0
"""Finds the C++-built models that installed packages register, from metadata first; a package is imported on need."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from importlib.resources import files

from atb_core import plugins
from atb_core.errors import EngineError, PluginError
from atb_core.models.cpp.registration import CppModel
from atb_core.names import normalized_name
from atb_core.plugins.admission import refusal, tell_once
from atb_core.plugins.loader import load_entry
from atb_core.plugins.records import Status
from atb_core.plugins.resolved import verify_resolved
from atb_core.plugins.scan import CPP_MODELS, Entry, Installed, installed
from atb_core.settings import settings

__all__ = ["known_packages", "model_of_family", "registered", "registered_names"]


def registered_names() -> dict[str, list[str]]:
    """The names that usable packages register, each with the packages; imports nothing."""
    found: dict[str, list[str]] = {}
    for one, entry in _entries():
        if refusal(one) is None:
            found.setdefault(entry.name, []).append(one.distribution)
    return dict(sorted(found.items()))


def registered(name: str) -> CppModel | None:
    """What is registered under `name`; `None` if no package has the name.

    A package that is broken is left out, and told of, while another one registers the same.

    Raises:
        EngineError: `name` is no string.
        PluginError: two packages register different things, both are named; or no package that has the name can be
            used; or the settings are strict and one cannot be used.
    """
    if not isinstance(name, str):
        # None would look through all packages, and hold one against another.
        raise EngineError(
            f"the name of a C++ model is a string, not {type(name).__name__}",
            hint='Give one such as "core_DecoderModel"; atb_core.models.cpp.model_names() lists them.',
        )
    found: list[tuple[Installed, CppModel]] = []
    failed: list[PluginError] = []
    for one, entry in _entries(name):
        try:
            found.append((one, load_entry(one, entry)))
        except PluginError as error:
            failed.append(error)
            _tell(one, error)
    for one, model in found[1:]:
        _check_agreement(name, found[0], (one, model))
    if not found and failed:
        raise failed[0]
    return found[0][1] if found else None


def model_of_family(model_type: str) -> tuple[str, CppModel] | None:
    """The name and registration with which the package that serves `model_type` runs it; `None` if it has none.

    Raises:
        PluginError: no package serves the type, or its registration cannot be used.
    """
    owner = normalized_name(plugins.registry().find(model_type).distribution)
    for one, entry in _entries():
        if one.key == owner:
            model: CppModel = load_entry(one, entry)
            if model_type in model.model_types:
                return entry.name, model
    return None


def known_packages(name: str) -> list[str]:
    """The packages that are known to register `name`, from the index that ships with the core."""
    return _index().get(name, [])


def _entries(name: str | None = None) -> Iterator[tuple[Installed, Entry]]:
    verify_resolved()
    for one in installed():
        for entry in one.entries:
            if entry.group == CPP_MODELS and name in (None, entry.name):
                yield one, entry


def _tell(one: Installed, error: PluginError) -> None:
    """A package that fails: an error if the settings are strict, else one line; a disabled one is meant to be."""
    reason = refusal(one)
    if reason is not None and reason.status is Status.DISABLED:
        return
    if settings().plugins.strict:
        raise error
    tell_once(str(error))


def _check_agreement(name: str, first: tuple[Installed, CppModel], second: tuple[Installed, CppModel]) -> None:
    differences = first[1].differences(second[1])
    if differences:
        raise PluginError(
            f"the C++ model {name!r} is registered by {first[0].package} and by {second[0].package}, which differ in"
            f" {' and '.join(differences)}",
            hint=f"Install versions of the two that agree, or leave one out: ATB_NO_PLUGINS={second[0].distribution}.",
        )


@functools.cache
def _index() -> dict[str, list[str]]:
    text = files("atb_core.plugins").joinpath("known_cpp_models.json").read_text(encoding="utf-8")
    index: dict[str, list[str]] = json.loads(text)
    return index
