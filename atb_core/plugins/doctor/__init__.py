# SPDX-License-Identifier: Apache-2.0
"""Finds out why a plugin does not work, by its metadata and by real imports."""

from __future__ import annotations

from atb_core.findings import Finding, Level
from atb_core.plugins.doctor.examine import PluginReport, Report, choose, examine

__all__ = ["Finding", "Level", "PluginReport", "Report", "choose", "examine"]
