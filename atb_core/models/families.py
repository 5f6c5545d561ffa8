# SPDX-License-Identifier: Apache-2.0
"""Finds the family of a model: the interface to the installed families, and the way from a checkpoint to its router."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from atb_core.extensions import Port

if TYPE_CHECKING:
    from atb_core.checkpoint.base import Checkpoint
    from atb_core.models.base.router import BaseRouter

__all__ = ["Families", "families", "model_type_of", "router_of"]


class Families(Protocol):
    """Finds families by `model_type`; each method raises UnknownModelError or PluginError if it cannot."""

    def model_types(self) -> list[str]:
        """Returns the model types that installed packages claim, from metadata alone."""
        ...

    def package_for(self, model_type: str) -> str:
        """Returns name and version of the package that serves `model_type`, from metadata alone."""
        ...

    def router_for(self, model_type: str, prefer: str | None = None) -> Any:
        """Returns the router class of the family for `model_type`, from the package `prefer` if given."""
        ...

    def config_for(self, model_type: str, prefer: str | None = None) -> Any:
        """Returns the configuration class of the family for `model_type`, from the package `prefer` if given."""
        ...

    def model_for(self, model_type: str, prefer: str | None = None) -> Any:
        """Returns the decorated model class of the family for `model_type`, from the package `prefer` if given."""
        ...

    def owner_of(self, router: type) -> str | None:
        """Returns the package whose metadata names this router class; `None` if none or several do."""
        ...


families: Port[Families] = Port("families")


def model_type_of(checkpoint: Checkpoint) -> str:
    """Returns the `model_type` of a checkpoint, by which its family is found; imports no family.

    Raises:
        ConfigError: there is no usable configuration, or it names no type.
    """
    return checkpoint.model_type(families().model_types())


def router_of(checkpoint: Checkpoint) -> BaseRouter:
    """Makes the router of the family that serves a checkpoint, and sets that family's rules on the checkpoint.

    Imports that family and no other; reads no weights.

    Raises:
        ConfigError: there is no usable configuration.
        UnknownModelError: no installed family serves the model.
        PluginError: the family cannot be used.
    """
    model_type = model_type_of(checkpoint)
    router_cls: type[BaseRouter] = families().router_for(model_type)
    checkpoint.set_rules(router_cls.gguf)
    return router_cls(str(checkpoint), {**checkpoint.config(), "model_type": model_type}, checkpoint)
