# SPDX-License-Identifier: Apache-2.0
"""Finds the family that serves a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atb_core import plugins

if TYPE_CHECKING:
    from atb_core.checkpoint.base import Checkpoint
    from atb_core.models.base.router import BaseRouter

__all__ = ["model_type_of", "router_of"]


def model_type_of(checkpoint: Checkpoint) -> str:
    """Returns the `model_type` of a checkpoint, by which its family is found; imports no family.

    Raises:
        ConfigError: there is no usable configuration, or it names no type.
    """
    return checkpoint.model_type([family.model_type for family in plugins.families()])


def router_of(checkpoint: Checkpoint) -> BaseRouter:
    """Makes the router of the family that serves a checkpoint, and sets that family's rules on the checkpoint.

    Imports that family and no other; reads no weights.

    Raises:
        ConfigError: there is no usable configuration.
        UnknownModelError: no installed family serves the model.
        PluginError: the family cannot be used.
    """
    model_type = model_type_of(checkpoint)
    router_cls: type[BaseRouter] = plugins.router_for(model_type)
    checkpoint.set_rules(router_cls.gguf)
    return router_cls(str(checkpoint), {**checkpoint.config(), "model_type": model_type}, checkpoint)
