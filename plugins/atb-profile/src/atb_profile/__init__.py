# SPDX-License-Identifier: Apache-2.0
"""Profiles of atb_core: when each node ran, on which thread, with how many bytes and operations."""

from atb_profile.costs import Cost, Operand, cost_of
from atb_profile.limits import Limits, measure_limits
from atb_profile.profile import Profile
from atb_profile.trace import write_trace

__all__ = ["Cost", "Limits", "Operand", "Profile", "cost_of", "measure_limits", "write_trace"]
