# SPDX-License-Identifier: Apache-2.0
"""Finds the C++-built models that installed packages register.

Names come from metadata alone; a package is imported when its model is needed.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path

from atb_core.errors import EngineError, PluginError
from atb_core.names import normalized_name
from atb_core.plugins.admission import refusal, warn_once
from atb_core.plugins.loader import load_entry
from atb_core.plugins.records import Status
from atb_core.plugins.registry import registry
from atb_core.plugins.scan import CPP_MODELS, Entry, Installed, installed
from atb_core.settings import settings
from atb_cpp_models.registration import CppModel


def registered_names() -> dict[str, list[str]]:
    """Returns the names that usable packages register, each with the packages; imports nothing."""
    packages: dict[str, list[str]] = {}
    for one, entry in _entries():
        if refusal(one) is None:
            packages.setdefault(entry.name, []).append(one.distribution)
    return dict(sorted(packages.items()))


def registered(name: str) -> CppModel | None:
    """Returns the model registered under `name`; `None` if no package has the name.

    A package that is broken is left out with a warning while another one registers the same name.

    Raises:
        EngineError: `name` is no string.
        PluginError: two packages register different things, both are named; or no package that has the name can be
            used; or the settings are strict and one cannot be used.
    """
    if not isinstance(name, str):
        # `None` would compare the models of all packages.
        raise EngineError(
            f"the name of a C++ model is a string, not {type(name).__name__}",
            hint='Give one such as "core_DecoderModel"; atb_cpp_models.model_names() lists them.',
        )
    models: list[tuple[Installed, CppModel]] = []
    failed: list[PluginError] = []
    for one, entry in _entries(name):
        try:
            models.append((one, load_entry(one, entry)))
        except PluginError as error:
            failed.append(error)
            _warn_or_raise(one, error)
    for other in models[1:]:
        _check_agreement(name, models[0], other)
    if not models and failed:
        raise failed[0]
    return models[0][1] if models else None


def model_of_family(model_type: str) -> tuple[str, CppModel] | None:
    """Returns name and registration with which the package that serves `model_type` runs it; `None` if it has none.

    Raises:
        PluginError: no package serves the type, or its registration cannot be used.
    """
    owner = normalized_name(registry().find(model_type).distribution)
    for one, entry in _entries():
        if one.key == owner:
            model: CppModel = load_entry(one, entry)
            if model_type in model.model_types:
                return entry.name, model
    return None


def known_packages(name: str) -> list[str]:
    """Returns the packages, installed or not, that are known to register `name`."""
    return known_models().get(name, [])


@functools.cache
def known_models() -> dict[str, list[str]]:
    """Returns the index of names that could be installed, each with the packages that register it."""
    names: dict[str, list[str]] = json.loads(Path(__file__).with_name("known_models.json").read_text(encoding="utf-8"))
    return names


def _entries(name: str | None = None) -> Iterator[tuple[Installed, Entry]]:
    for one in installed():
        for entry in one.entries:
            if entry.group == CPP_MODELS and name in (None, entry.name):
                yield one, entry


def _warn_or_raise(one: Installed, error: PluginError) -> None:
    """Raises the error of a package that fails if the settings are strict, else warns; ignores a disabled package."""
    refused = refusal(one)
    if refused is not None and refused.status is Status.DISABLED:
        return
    if settings().plugins.strict:
        raise error
    warn_once(str(error))


def _check_agreement(name: str, first: tuple[Installed, CppModel], second: tuple[Installed, CppModel]) -> None:
    differences = first[1].differences(second[1])
    if differences:
        raise PluginError(
            f"the C++ model {name!r} is registered by {first[0].package} and by {second[0].package}, which differ in"
            f" {' and '.join(differences)}",
            hint=f"Install versions of the two that agree, or leave one out: ATB_NO_PLUGINS={second[0].distribution}.",
        )
