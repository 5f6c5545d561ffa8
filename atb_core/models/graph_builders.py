# SPDX-License-Identifier: Apache-2.0
"""The place of those who write models' graphs instead of the families' Python: `ModelRunner(graph="cpp")`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atb_core.errors import BackendUnavailableError
from atb_core.extensions import Extensions

if TYPE_CHECKING:
    from atb_core.models.base.config import BaseConfig
    from atb_core.models.base.flash_causal_lm_v3 import CausalLM
    from atb_core.models.runtime.variants import VariantStore

__all__ = ["GraphBuilder"]


@dataclass(frozen=True)
class GraphBuilder:
    """Writes the graphs of models.

    Attributes:
        name: the value of `ModelRunner(graph=)` that chooses it, one of `atb_core.names.GRAPHS`.
        prepare: takes a model type and the configuration, and returns a function that makes the variants of such a
            model before its weights are set; both raise BackendUnavailableError for a model without such a graph.
    """

    name: str
    prepare: Callable[[str, BaseConfig], Callable[[CausalLM], VariantStore]]


GRAPH_BUILDERS: Extensions[GraphBuilder] = Extensions("atb_graph_builders", GraphBuilder, name="name")


def graph_builder(name: str) -> GraphBuilder:
    """Returns the builder called `name`; BackendUnavailableError if no plugin that is in use has it."""
    instead = " Or use graph='python'."
    return GRAPH_BUILDERS.required(name, f"graph={name!r}", BackendUnavailableError, instead=instead).value
