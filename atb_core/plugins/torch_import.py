# SPDX-License-Identifier: Apache-2.0
"""Prevents that a distribution with damaged metadata breaks `import torch` for all others."""

from __future__ import annotations

import logging
import os
import sys

from atb_core.errors import printable
from atb_core.plugins.once import Once
from atb_core.plugins.scan import environment

_log = logging.getLogger(__name__)
_AUTOLOAD = "TORCH_DEVICE_BACKEND_AUTOLOAD"


@Once
def protect_torch_import() -> None:
    """Switches torch's search for device backends off, with a warning, if installed metadata would break it.

    torch reads the entry points of everything that is installed, and its import fails if one file of one distribution
    is not UTF-8. To be called before torch is imported. TORCH_DEVICE_BACKEND_AUTOLOAD is respected if it is set.
    """
    if "torch" in sys.modules or _AUTOLOAD in os.environ:
        return
    if damaged := environment().undecodable:
        os.environ[_AUTOLOAD] = "0"
        _log.warning(
            "torch does not look for device backends (%s=0 is set), because its import would fail on what is not UTF-8:"
            " %s. Install the package that the file belongs to again.",
            _AUTOLOAD,
            ", ".join(printable(path) for path in damaged[:3]),
        )
