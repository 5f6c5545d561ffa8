# SPDX-License-Identifier: Apache-2.0
"""Finds model families: the interface that the plugin system implements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from atb_core.extensions import Port

if TYPE_CHECKING:
    from atb_core.checkpoint.base import Checkpoint


#: Groups of entry points, each named by the model type that it is for.
ROUTERS = "atb_core.routers"
CONFIGS = "atb_core.configs"
MODELS = "atb_core.models"


class Families(Protocol):
    """Finds families by `model_type`; each method raises UnknownModelError or PluginError if it cannot."""

    def model_types(self) -> list[str]:
        """Returns the model types that installed packages claim, from metadata alone."""

    def load(self, group: str, model_type: str, prefer: str | None = None) -> Any:
        """Returns the class of the family for `model_type` in an entry-point group, from the package `prefer` if given.

        In `ROUTERS` that is its router, in `CONFIGS` its configuration, in `MODELS` its decorated model.
        """

    def owner_of(self, router: type) -> str | None:
        """Returns the package whose metadata names this router class; `None` if none or several do."""


families: Port[Families] = Port("families")


def model_type_of(checkpoint: Checkpoint) -> str:
    """Returns the `model_type` of a checkpoint, by which its family is found; imports no family.

    Raises:
        ConfigError: there is no usable configuration, or it names no type.
    """
    return checkpoint.model_type(families().model_types())
