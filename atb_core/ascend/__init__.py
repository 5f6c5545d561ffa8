# SPDX-License-Identifier: Apache-2.0
"""Examines this machine for Ascend's software: versions, mismatches, what the backend `atb` lacks.

Nothing here imports torch or torch_npu, except torch for its C++ ABI if its files do not give it.
"""

from __future__ import annotations

from atb_core.ascend.environment import Report, examine, missing_for_backend, unavailable
from atb_core.ascend.machine import Machine
from atb_core.findings import Finding, Level

__all__ = ["Finding", "Level", "Machine", "Report", "examine", "missing_for_backend", "unavailable"]
