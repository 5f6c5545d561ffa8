# SPDX-License-Identifier: Apache-2.0
"""Finds model families: the interface that the plugin system implements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from atb_core.extensions import Port

if TYPE_CHECKING:
    from atb_core.checkpoint.base import Checkpoint


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
