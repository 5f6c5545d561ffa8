# SPDX-License-Identifier: Apache-2.0
"""Keeps a plugin with damaged metadata from breaking `import torch` for all others."""

from __future__ import annotations

import logging
import os
import sys

from atb_core.plugins.once import Once
from atb_core.plugins.scan import Installed, installed

__all__ = ["protect_torch_import"]

_log = logging.getLogger(__name__)
_AUTOLOAD = "TORCH_DEVICE_BACKEND_AUTOLOAD"


@Once
def protect_torch_import() -> None:
    """To be called before torch is imported.

    torch reads the entry points of everything that is installed to find device backends, and its import fails when
    one file of one distribution is not UTF-8. If a plugin is such a distribution, torch is told not to look, with a
    warning. What the variable TORCH_DEVICE_BACKEND_AUTOLOAD says already is respected.
    """
    if "torch" in sys.modules or _AUTOLOAD in os.environ:
        return
    damaged = [plugin for plugin in installed() if plugin.problem is not None and not _readable(plugin)]
    if damaged:
        os.environ[_AUTOLOAD] = "0"
        names = ", ".join(f"{plugin.distribution} ({plugin.path})" for plugin in damaged)
        _log.warning(
            "torch does not look for device backends (%s=0 is set), because its import would fail on the damaged "
            "metadata of %s. `atb plugins doctor` says what to do.",
            _AUTOLOAD,
            names,
        )


def _readable(plugin: Installed) -> bool:
    try:
        (plugin.path / "entry_points.txt").read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return False
    except OSError:
        return True  # not there, or not to be read: both are nothing to Python's own reader
    return True
