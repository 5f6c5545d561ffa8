# SPDX-License-Identifier: Apache-2.0
"""Adds `graph="cpp"` to the models of families that register a C++ model."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from atb_core.models.graph_builders import GraphBuilder
from atb_core.plugins import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

    from atb_core.models.base.config import BaseConfig
    from atb_core.models.base.flash_causal_lm_v3 import CausalLM
    from atb_cpp_models.graph_variants import CppVariants


@hookimpl
def atb_graph_builders() -> list[GraphBuilder]:
    """Returns the builder whose graphs C++ writes."""
    return [GraphBuilder("cpp", _prepare)]


def _prepare(model_type: str, config: BaseConfig) -> Callable[[CausalLM], CppVariants]:
    from atb_cpp_models.graph_variants import CppVariants, name_for

    return partial(CppVariants, name=name_for(model_type, config))
