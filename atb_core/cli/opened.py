# SPDX-License-Identifier: Apache-2.0
"""A model opened for looking at: configuration, family and shapes, but no weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from atb_core.checkpoint import WeightLoader
    from atb_core.models.base.flash_causal_lm_v3 import CausalLM
    from atb_core.models.base.router import BaseRouter
    from atb_core.plugins.registry import Family


@dataclass(frozen=True)
class OpenedModel:
    """A model's files and the family that serves it."""

    path: Path
    family: Family
    router: BaseRouter

    def build(self, backend: str = "reference") -> CausalLM:
        """The model with its shapes and without weights."""
        from atb_core.models.base.mindie_llm_config import MindIELLMConfig

        with self.weights() as loader:
            return self.router.model_cls(MindIELLMConfig(self.router.config), loader, backend=backend)

    def weights(self) -> WeightLoader:
        """The checkpoint's tensors, of which only names, types and shapes have been read."""
        from atb_core.checkpoint import open_weights

        return open_weights(self.path, self.router.gguf, self.router.config.data_type)


def open_model(reference: str) -> OpenedModel:
    """Finds a model, fetching it if it is not on this machine, and the family that serves it."""
    from atb_core.plugins.registry import registry
    from atb_core.runner.model_loading import open_checkpoint

    checkpoint = open_checkpoint(reference)
    family = registry().find(checkpoint.router.model_type)
    return OpenedModel(checkpoint.path, family, checkpoint.router)
