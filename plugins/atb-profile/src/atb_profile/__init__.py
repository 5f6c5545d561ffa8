# SPDX-License-Identifier: Apache-2.0
"""Profiles of atb_core: when each node ran, on which thread, with how many bytes and operations."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atb_profile.costs import Cost, Operand, cost_of
    from atb_profile.limits import Limits, measure_limits
    from atb_profile.profile import Profile
    from atb_profile.trace import write_trace

__all__ = ["Cost", "Limits", "Operand", "Profile", "cost_of", "measure_limits", "write_trace"]

# Loaded on use: the command is a hook, and commands that run no model must not import torch.
_HOME = {
    "Cost": "costs",
    "Limits": "limits",
    "Operand": "costs",
    "Profile": "profile",
    "cost_of": "costs",
    "measure_limits": "limits",
    "write_trace": "trace",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"atb_profile.{_HOME[name]}"), name)
