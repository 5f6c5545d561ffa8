# SPDX-License-Identifier: Apache-2.0
"""A model opened for looking at: configuration, family and shapes, but no weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atb_core.checkpoint import Checkpoint, WeightLoader
    from atb_core.models.base.flash_causal_lm_v3 import CausalLM
    from atb_core.models.base.router import BaseRouter
    from atb_core.plugins.registry import Family


@dataclass(frozen=True)
class OpenedModel:
    """A model's files and the family that serves it."""

    checkpoint: Checkpoint
    family: Family
    router: BaseRouter

    def build(self, backend: str = "reference") -> CausalLM:
        """Returns the model with its shapes and without weights."""
        from atb_core.models.base.mindie_llm_config import MindIELLMConfig

        with self.weights() as loader:
            return self.router.model_cls(MindIELLMConfig(self.router.config), loader, backend=backend)

    def weights(self) -> WeightLoader:
        """Opens the checkpoint's tensors, of which only names, types and shapes are read."""
        return self.checkpoint.weights(self.router.config.data_type)


def open_model(reference: str) -> OpenedModel:
    """Finds a model, fetching it if it is not on this machine, and the family that serves it."""
    from atb_core.checkpoint import open_checkpoint

    return opened_model(open_checkpoint(reference))


def opened_model(checkpoint: Checkpoint) -> OpenedModel:
    """Finds the family that serves a checkpoint."""
    from atb_core.models.base.router import router_of
    from atb_core.plugins.registry import registry

    router = router_of(checkpoint)
    return OpenedModel(checkpoint, registry().find(router.model_type), router)
