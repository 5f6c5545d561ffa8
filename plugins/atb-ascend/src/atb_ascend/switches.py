# SPDX-License-Identifier: Apache-2.0
"""Reads and checks the environment variables that are switches of the backends `atb` and `atb-sim`."""

from __future__ import annotations

import os
from collections.abc import Mapping

from atb_ascend.findings import Finding, Level
from atb_ascend.machine import Machine
from atb_core.errors import EngineError

#: The variables that are 0 or 1, with their defaults.
SWITCHES = {"ATB_OPERATION_EXECUTE_ASYNC": "0", "ASCEND_LAUNCH_BLOCKING": "0", "ATB_LLM_ENABLE_AUTO_TRANSPOSE": "1"}
#: The variables of the simulator that are numbers.
_NUMBERS = {"ATB_SIM_MEMORY": "bytes", "ATB_SIM_DEVICES": "devices"}
#: CANN's, which decide what a value becomes that float16 cannot hold.
_SATURATION = ("INF_NAN_MODE_ENABLE", "INF_NAN_MODE_FORCE_DISABLE")


def switch(name: str, environ: Mapping[str, str] | None = None) -> bool:
    """Returns true if a switch is on; EngineError if it is neither 0 nor 1."""
    value = (os.environ if environ is None else environ).get(name) or SWITCHES[name]
    if value not in ("0", "1"):
        # ATB-Models has three stages, and its scripts ask for them.
        known = " (2, the three stages of ATB-Models, is not supported)" if value == "2" and "ASYNC" in name else ""
        raise EngineError(f"{name}={value!r} is neither 0 nor 1{known}", hint=f"export {name}=1 or 0, or unset it.")
    return value == "1"


def local_rank() -> int:
    """Returns the device of this process by `LOCAL_RANK`, 0 without; EngineError if it is no number."""
    value = os.environ.get("LOCAL_RANK") or "0"
    if not (value.isascii() and value.isdecimal()):
        raise EngineError(f"LOCAL_RANK={value!r:.40} is no number of a device", hint="torchrun sets it; unset it.")
    return int(value)


def check_switches(machine: Machine) -> Finding:
    """Checks all of them: the finding blocks the backends that would refuse to start."""
    wrong: dict[str, str] = {}
    blocks: set[str] = set()
    for name in SWITCHES:
        try:
            switch(name, machine.environ)
        except EngineError as error:
            wrong[name] = error.message
            blocks.update(("atb", "atb-sim"))
    for name, unit in _NUMBERS.items():
        value = machine.variable(name)
        if value is not None and not (value.isascii() and value.isdecimal()):
            wrong[name] = f"{name}={value!r} is no number of {unit}"
            blocks.add("atb-sim")
    values = {
        name: value for name in (*SWITCHES, *_NUMBERS, *_SATURATION) if (value := machine.variable(name)) is not None
    }
    message = ", ".join(f"{name}={value}" for name, value in values.items()) or "at their defaults"
    if not wrong:
        return Finding("switches", Level.OK, message)
    fix = f"Correct them, or: unset {' '.join(wrong)}"
    return Finding("switches", Level.ERROR, message, "; ".join(wrong.values()), fix, tuple(sorted(blocks)))
