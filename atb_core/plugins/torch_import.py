# SPDX-License-Identifier: Apache-2.0
"""Prevents that a plugin with damaged metadata breaks `import torch` for all others."""

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
    """Switches torch's search for device backends off, with a warning, if a plugin's metadata would break it.

    torch reads the entry points of everything that is installed, and its import fails if one file of one distribution
    is not UTF-8. To be called before torch is imported. TORCH_DEVICE_BACKEND_AUTOLOAD is respected if it is set.
    """
    if "torch" in sys.modules or _AUTOLOAD in os.environ:
        return
    damaged = [plugin for plugin in installed() if plugin.problem is not None and not _is_utf8(plugin)]
    if damaged:
        os.environ[_AUTOLOAD] = "0"
        _log.warning(
            "torch does not look for device backends (%s=0 is set), because its import would fail on the damaged "
            "metadata of %s. `atb plugins doctor` says what to do.",
            _AUTOLOAD,
            ", ".join(f"{plugin.distribution} ({plugin.path})" for plugin in damaged),
        )


def _is_utf8(plugin: Installed) -> bool:
    try:
        (plugin.path / "entry_points.txt").read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return False
    except OSError:
        pass  # Python's own reader ignores a file that is missing or unreadable
    return True
