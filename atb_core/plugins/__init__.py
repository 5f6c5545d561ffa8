# SPDX-License-Identifier: Apache-2.0
"""Model families that installed packages offer, found from package metadata alone; and hooks, called on need."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from atb_core.plugins.loader import load_entry, try_load
from atb_core.plugins.once import forget
from atb_core.plugins.records import LoadRecord, Status, clear_records, records
from atb_core.plugins.registry import (
    CONFIGS,
    MODELS,
    ROUTERS,
    Family,
    FamilyRegistry,
    Resolution,
    config_for,
    families,
    model_for,
    registry,
    router_for,
)
from atb_core.plugins.scan import Entry, Installed, installed

if TYPE_CHECKING:
    from atb_core.checkpoint.custom import WeightFormat
    from atb_core.graph.custom_ops import OpContribution
    from atb_core.plugins.hooks import register as register_hooks
    from atb_core.plugins.hookspecs import hookimpl
    from atb_core.runner.tool_calls import ParsedAnswer, ToolCall, ToolParser

__all__ = [
    "CONFIGS",
    "MODELS",
    "ROUTERS",
    "Entry",
    "Family",
    "FamilyRegistry",
    "Installed",
    "LoadRecord",
    "OpContribution",
    "ParsedAnswer",
    "Resolution",
    "Status",
    "ToolCall",
    "ToolParser",
    "WeightFormat",
    "clear_records",
    "config_for",
    "families",
    "forget",
    "hookimpl",
    "installed",
    "load_entry",
    "model_for",
    "records",
    "register_hooks",
    "registry",
    "router_for",
    "try_load",
]

# Authors of hooks import these names. They are loaded on use: listing families must not load the layers they are from.
_HOME = {
    "OpContribution": ("atb_core.graph.custom_ops", "OpContribution"),
    "ParsedAnswer": ("atb_core.runner.tool_calls", "ParsedAnswer"),
    "ToolCall": ("atb_core.runner.tool_calls", "ToolCall"),
    "ToolParser": ("atb_core.runner.tool_calls", "ToolParser"),
    "WeightFormat": ("atb_core.checkpoint.custom", "WeightFormat"),
    "hookimpl": ("atb_core.plugins.hookspecs", "hookimpl"),
    "register_hooks": ("atb_core.plugins.hooks", "register"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOME[name]
    return getattr(import_module(module), attribute)
