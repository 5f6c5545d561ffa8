# SPDX-License-Identifier: Apache-2.0
"""Finds the parser of tool calls that a family names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atb_core.errors import RequestError
from atb_core.plugins import hooks

if TYPE_CHECKING:
    from atb_core.plugins.tool_parsers import ToolParser

__all__ = ["tool_parser"]


def tool_parser(name: str | None, model_type: str) -> ToolParser:
    """A parser for one answer, of the notation that a family names.

    Raises:
        RequestError: the family names none, or no installed plugin offers it.
        PluginError: several plugins offer it.
    """
    if name is None:
        raise RequestError(f"the family of {model_type!r} names no notation for tool calls")
    offers = hooks.tool_parsers()
    found = hooks.only([offer for offer in offers if offer.value.name == name], f"the tool parser {name!r}")
    if found is None:
        known = ", ".join(f"{offer.value.name} ({offer.owner})" for offer in offers) or "none"
        raise RequestError(
            f"models of type {model_type!r} write tool calls as {name!r}, and no installed plugin reads that",
            hint=f"Parsers: {known}.{hooks.failures()}",
        )
    return found.value()
