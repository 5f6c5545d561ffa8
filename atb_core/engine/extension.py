# SPDX-License-Identifier: Apache-2.0
"""The C++ extension, or why it cannot be had."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atb_core.errors import BackendUnavailableError

if TYPE_CHECKING:
    from types import ModuleType


def load_extension() -> ModuleType:
    """`atb_core._cpu`; BackendUnavailableError when it is not built or does not load here."""
    try:
        from atb_core import _cpu
    except ImportError as error:
        raise BackendUnavailableError(
            f"the C++ engine cannot be loaded: {error}",
            hint='Reinstall atb-core for this Python and platform, or use backend="reference".',
        ) from error
    return _cpu
