# SPDX-License-Identifier: Apache-2.0
"""Discovers what installed packages add to atb_core; exports what modules with hooks import.

Model families are found from package metadata alone (`registry`). Hooks are called when something first needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atb_core.checkpoint.formats import CheckpointFormat
    from atb_core.checkpoint.quant_schemes import QuantScheme
    from atb_core.graph.custom_ops import OpContribution
    from atb_core.plugins.hooks import register_hooks
    from atb_core.plugins.hookspecs import hookimpl
    from atb_core.runner.drafting import DraftMethod
    from atb_core.runner.tool_calls import ParsedAnswer, ToolCall, ToolParser, json_call, json_value, length_before

__all__ = [
    "CheckpointFormat", "DraftMethod", "OpContribution", "ParsedAnswer", "QuantScheme", "ToolCall", "ToolParser",
    "hookimpl", "json_call", "json_value", "length_before", "register_hooks",
]  # fmt: skip

# Loaded on use: listing families must not load the layers that these names are from.
_HOME = {
    "CheckpointFormat": "checkpoint.formats", "QuantScheme": "checkpoint.quant_schemes",
    "DraftMethod": "runner.drafting", "OpContribution": "graph.custom_ops",
    "hookimpl": "plugins.hookspecs", "register_hooks": "plugins.hooks",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"atb_core.{_HOME.get(name, 'runner.tool_calls')}"), name)
