# SPDX-License-Identifier: Apache-2.0
"""Reads the environment variables that are switches of the backends `atb` and `atb-sim`."""

from __future__ import annotations

import os
from collections.abc import Mapping

from atb_core.errors import EngineError

#: The variables that are 0 or 1, with their defaults.
SWITCHES = {"ATB_OPERATION_EXECUTE_ASYNC": "0", "ASCEND_LAUNCH_BLOCKING": "0", "ATB_LLM_ENABLE_AUTO_TRANSPOSE": "1"}


def switch(name: str, environ: Mapping[str, str] | None = None) -> bool:
    """Returns true if a switch is on; EngineError if it is neither 0 nor 1."""
    value = (os.environ if environ is None else environ).get(name) or SWITCHES[name]
    if value not in ("0", "1"):
        # ATB-Models has three stages, and its scripts ask for them.
        known = " (2, the three stages of ATB-Models, is not supported)" if value == "2" and "ASYNC" in name else ""
        raise EngineError(f"{name}={value!r} is neither 0 nor 1{known}", hint=f"export {name}=1 or 0, or unset it.")
    return value == "1"
