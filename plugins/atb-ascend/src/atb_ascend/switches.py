# SPDX-License-Identifier: Apache-2.0
"""Checks the environment variables that are switches of the backends `atb` and `atb-sim`."""

from __future__ import annotations

from atb_ascend.findings import Finding, Level
from atb_ascend.machine import Machine
from atb_core.engine.switches import SWITCHES, switch
from atb_core.errors import EngineError

#: The variables of the simulator that are numbers.
_NUMBERS = {"ATB_SIM_MEMORY": "bytes", "ATB_SIM_DEVICES": "devices"}
#: CANN's, which decide what a value becomes that float16 cannot hold.
_SATURATION = ("INF_NAN_MODE_ENABLE", "INF_NAN_MODE_FORCE_DISABLE")


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
