# SPDX-License-Identifier: Apache-2.0
"""Import of the C++ engine with errors that name the cause."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from atb_core.errors import BackendUnavailableError

_PACKAGE = Path(__file__).parents[1]


def load_extension() -> ModuleType:
    """Returns the module `atb_core._cpu`.

    Raises:
        BackendUnavailableError: the module is not built, or does not load on this machine.
    """
    try:
        return import_module("atb_core._cpu")
    except ImportError as error:
        if find_spec("atb_core._cpu") is None and (_PACKAGE.parent / "csrc").is_dir():
            raise BackendUnavailableError(
                f"Python imported atb_core from the source folder {_PACKAGE}, which has no compiled engine",
                hint="Install the clone with `nox -s dev` or `pip install --editable .`, or start Python in another "
                "folder to import an installed atb_core.",
            ) from error
        raise BackendUnavailableError(
            f"the C++ engine cannot be loaded: {error}",
            hint='Reinstall atb-core for this Python and platform, or use backend="reference".',
        ) from error
