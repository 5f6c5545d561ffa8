# SPDX-License-Identifier: Apache-2.0
"""Checks that an entry point leads to what its group needs."""

from __future__ import annotations

import sys

from atb_core.plugins.scan import CONFIGS, CPP_MODELS, HOOKS, MODELS, ROUTERS

__all__ = ["wrong_kind"]

# By group: the module and name of the class that everything in it derives from, and what messages call a subclass.
_BASES = {
    ROUTERS: ("atb_core.models.base.router", "BaseRouter", "a subclass of BaseRouter"),
    CONFIGS: ("atb_core.models.base.config", "BaseConfig", "a subclass of BaseConfig"),
    MODELS: (
        "atb_core.models.base.flash_causal_lm_v3",
        "CausalLM",
        "a subclass of FlashCausalLMV3 under @torch_to_mindie_graph()",
    ),
    CPP_MODELS: ("atb_core.models.cpp.registration", "CppModel", "a CppModel"),
}


def wrong_kind(group: str, value: object) -> str | None:
    """Returns why `value` cannot serve in `group`, as the end of a sentence about it; `None` if it can.

    Imports no base class (and so no torch): nothing derives from a class that has not been imported.
    """
    if group == HOOKS:
        from atb_core.plugins.hook_rules import hook_problem  # imports pluggy

        return hook_problem(value)
    if group not in _BASES:
        return None
    module, name, words = _BASES[group]
    base = getattr(sys.modules.get(module), name, None)
    if group == CPP_MODELS:
        is_model = base is not None and isinstance(value, base)
        return None if is_model else f"is a {type(value).__name__}, where {group} needs {words}"
    if not isinstance(value, type):
        return f"is a {type(value).__name__}, where {group} needs a class, {words}"
    return None if base is not None and issubclass(value, base) else f"is not {words}, which {group} needs"
