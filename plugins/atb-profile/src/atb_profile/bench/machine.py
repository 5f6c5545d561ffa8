# SPDX-License-Identifier: Apache-2.0
"""Describes the machine of a measurement: without it, a figure says nothing."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from atb_core.distributions import version_of
from atb_core.engine.cpu import CpuBackend

_PACKAGES = ("atb-core", "torch", "transformers", "numpy")
_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16", "amx_int8")


def machine(threads: int) -> dict[str, Any]:
    """Returns processor, memory, load and versions."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    fields = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in info.splitlines())}
    flags = set(fields.get("flags", "").split())
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "processor": fields.get("model name", platform.processor()),
        "flags": [flag for flag in _FLAGS if flag in flags],
        "processors": os.cpu_count(),
        "isa": CpuBackend(num_threads=threads).isa,
        "threads": threads,
        "load_average": load(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "versions": {name: version_of(name) for name in _PACKAGES},
    }


def load() -> float:
    """Returns the number of processes that ran or waited for a processor in the last minute."""
    return round(os.getloadavg()[0], 2)
