# SPDX-License-Identifier: Apache-2.0
"""What this machine has of Ascend's software: versions, what does not match, what the backend `atb` lacks.

Nothing here imports torch or torch_npu, but for torch's C++ ABI where its files do not tell it.
"""

from __future__ import annotations

from atb_core.ascend.environment import Report, examine, missing_for_backend, unavailable
from atb_core.ascend.machine import Machine
from atb_core.findings import Finding, Level

__all__ = ["Finding", "Level", "Machine", "Report", "examine", "missing_for_backend", "unavailable"]
