# SPDX-License-Identifier: Apache-2.0
"""What an entry point of each group must lead to."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from atb_core.plugins.scan import CONFIGS, CPP_MODELS, HOOKS, MODELS, ROUTERS

__all__ = ["wrong_kind"]


@dataclass(frozen=True)
class _Kind:
    """A class that everything in a group derives from, by name: to look must not import torch."""

    module: str
    name: str
    words: str


_KINDS = {
    ROUTERS: _Kind("atb_core.models.base.router", "BaseRouter", "a subclass of BaseRouter"),
    CONFIGS: _Kind("atb_core.models.base.config", "BaseConfig", "a subclass of BaseConfig"),
    MODELS: _Kind(
        "atb_core.models.base.flash_causal_lm_v3",
        "CausalLM",
        "a subclass of FlashCausalLMV3 under @torch_to_mindie_graph()",
    ),
}


def wrong_kind(group: str, value: object) -> str | None:
    """Why `value` cannot serve in `group`, as the end of a sentence about it; `None` if it can.

    A class whose base has not been imported by now cannot derive from it, so nothing needs importing to say so.
    """
    if group == HOOKS:
        from atb_core.plugins.hook_rules import hook_problem

        return hook_problem(value)
    if group == CPP_MODELS:
        return _no_cpp_model(value)
    kind = _KINDS.get(group)
    if kind is None:
        return None
    base = getattr(sys.modules.get(kind.module), kind.name, None)
    if isinstance(value, type) and base is not None and issubclass(value, base):
        return None
    if not isinstance(value, type):
        return f"is a {type(value).__name__}, where {group} needs a class, {kind.words}"
    return f"is not {kind.words}, which {group} needs"


def _no_cpp_model(value: object) -> str | None:
    """The one group that needs an object and not a class."""
    kind = getattr(sys.modules.get("atb_core.models.cpp.registration"), "CppModel", None)
    if kind is not None and isinstance(value, kind):
        return None
    return f"is a {type(value).__name__}, where {CPP_MODELS} needs a CppModel"
