# SPDX-License-Identifier: Apache-2.0
"""Finds out why a plugin does not work, by its metadata and by real imports."""

from __future__ import annotations

from atb_core.findings import Finding, Level
from atb_core.plugins.doctor.examine import choose, examine
from atb_core.plugins.doctor.findings import PluginReport, Report

__all__ = ["Finding", "Level", "PluginReport", "Report", "choose", "examine"]
