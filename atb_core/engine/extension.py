# SPDX-License-Identifier: Apache-2.0
"""Loads the C++ extension, or says why it cannot be loaded."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from atb_core.errors import BackendUnavailableError


def load_extension() -> ModuleType:
    """Returns the module `atb_core._cpu`; BackendUnavailableError if it is not built or does not load here."""
    try:
        return import_module("atb_core._cpu")
    except ImportError as error:
        raise BackendUnavailableError(
            f"the C++ engine cannot be loaded: {error}",
            hint='Reinstall atb-core for this Python and platform, or use backend="reference".',
        ) from error
