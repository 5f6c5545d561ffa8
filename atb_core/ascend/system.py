# SPDX-License-Identifier: Apache-2.0
"""The NPU's driver and its device files."""

from __future__ import annotations

import os
import re
from pathlib import Path

from atb_core.ascend.installs import driver_version, find_driver
from atb_core.ascend.machine import Machine
from atb_core.findings import Finding, Level

_DRIVER_FIX = "Install driver and firmware of the NPU; in a container, mount the host's /usr/local/Ascend/driver."
_GROUP_FIX = 'Add the user to the group that owns the devices: sudo usermod -aG HwHiAiUser "$USER", then log in again.'


def check_driver(machine: Machine, ascend: bool) -> Finding:
    """The driver's folder and version. `ascend`: whether other parts of Ascend are here, so that it is missed."""
    install = find_driver(machine)
    if install is None:
        level = Level.WARNING if ascend else Level.ABSENT
        # Where its devices are, it is at work: only its folder is at an unusual place, or not in this container.
        blocks = () if _davinci(machine.dev) else ("atb",)
        return Finding("driver", level, "not found", f"no {machine.root}/driver", _DRIVER_FIX, blocks)
    if not os.path.isdir(install.path):
        cause = f"{install.variable}={install.path} is not a folder"
        return Finding(
            "driver", Level.ERROR, "not found", cause, f"Set {install.variable} right or unset it.", ("atb",)
        )
    read = driver_version(install.path)
    found = f"{read.version or 'unknown version'} in {install.path}"
    if read.version is None:
        cause = "; ".join(read.problems) or f"there is no {install.path}/version.info"
        return Finding("driver", Level.WARNING, found, cause, "Compare with what npu-smi info prints.")
    return Finding("driver", Level.OK, found)


def check_devices(machine: Machine, ascend: bool) -> Finding:
    """The NPUs that this process could open."""
    devices = _davinci(machine.dev)
    if not devices:
        level = Level.WARNING if ascend else Level.ABSENT
        cause = f"there is no {machine.dev}/davinci0 or the like"
        fix = "npu-smi info shows what the driver sees; a container needs --device /dev/davinci0 and its companions."
        return Finding("devices", level, "no NPU", cause, fix, ("atb",))
    found = f"{len(devices)} NPU{'s' if len(devices) > 1 else ''} ({', '.join(path.name for path in devices)})"
    visible = machine.variable("ASCEND_RT_VISIBLE_DEVICES")
    if visible:
        found += f", ASCEND_RT_VISIBLE_DEVICES={visible}"
    if not any(os.access(path, os.R_OK | os.W_OK) for path in devices):
        cause = f"this user may not open {devices[0]}"
        return Finding("devices", Level.ERROR, found, cause, _GROUP_FIX, ("atb",))
    return Finding("devices", Level.OK, found)


def _davinci(dev: Path) -> list[Path]:
    """/dev/davinci0, ...; not /dev/davinci_manager."""
    try:
        names = os.listdir(dev)
    except OSError:
        return []
    numbers = sorted(int(match[1]) for name in names if (match := re.fullmatch(r"davinci(\d+)", name)))
    return [dev / f"davinci{number}" for number in numbers]
