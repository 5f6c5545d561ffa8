# SPDX-License-Identifier: Apache-2.0
"""Ascend for atb_core: the backends `atb` and `atb-sim`, and the examination of a machine for what they need.

Importing this package imports neither torch nor torch_npu.
"""

from atb_ascend.findings import Finding, Level
from atb_ascend.machine import Machine
from atb_ascend.report import Report, examine, missing_for_backend, unavailable

__all__ = ["Finding", "Level", "Machine", "Report", "examine", "missing_for_backend", "unavailable"]
