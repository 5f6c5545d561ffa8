# SPDX-License-Identifier: Apache-2.0
"""Calls the hooks of installed plugins: one typed function for each hook.

pluggy keeps the implementations; what it does not do is done in `hook_manager`: a plugin's module is imported when a
hook is first needed and not before, an implementation that fails or returns something else than it should is recorded
and told of once while all others go on, and every contribution knows whose it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from atb_core.errors import PluginError
from atb_core.plugins.hook_manager import Hooks, Offered, Owner
from atb_core.plugins.once import Once
from atb_core.plugins.scan import HOOKS
from atb_core.settings import settings

if TYPE_CHECKING:
    import click

    from atb_core.features.base import FeatureDecorator
    from atb_core.graph.passes import Pass
    from atb_core.plugins.contributions import OpContribution, WeightFormat
    from atb_core.plugins.tool_parsers import ToolParser

__all__ = ["Offered", "Owner", "cli_commands", "failed", "failures", "features", "fusion_passes", "only", "ops"]
__all__ += ["register", "tool_parsers", "weight_formats"]

T = TypeVar("T")


def fusion_passes() -> list[Offered[Pass]]:
    """What plugins return from `atb_fusion_passes`."""
    return _hooks().offered("atb_fusion_passes")


def ops() -> list[Offered[OpContribution]]:
    """What plugins return from `atb_ops`."""
    return _hooks().offered("atb_ops")


def features() -> list[Offered[type[FeatureDecorator]]]:
    """What plugins return from `atb_features`."""
    return _hooks().offered("atb_features")


def cli_commands() -> list[Offered[click.Command]]:
    """What plugins return from `atb_cli_commands`."""
    return _hooks().offered("atb_cli_commands")


def weight_formats() -> list[Offered[WeightFormat]]:
    """What plugins return from `atb_weight_formats`."""
    return _hooks().offered("atb_weight_formats")


def tool_parsers() -> list[Offered[type[ToolParser]]]:
    """What plugins return from `atb_tool_parsers`."""
    return _hooks().offered("atb_tool_parsers")


def register(plugin: object, name: str, version: str = "") -> None:
    """Adds the hooks of an object that no package brings: a module, or a class of a notebook.

    Hooks of a kind that has been needed before are called now.

    Raises:
        PluginError: the name is taken, or `plugin` implements no hook, an unknown one, or one in another form.
    """
    _hooks().register(plugin, Owner(name, version, target=f"{HOOKS}: registered as {name}"))


def only(found: list[Offered[T]], what: str) -> Offered[T] | None:
    """The one contribution of several that claim a name, `None` of none; PluginError names all who claim it."""
    if len(found) > 1:
        owners = " and ".join(str(offer.owner) for offer in found)
        raise PluginError(
            f"{what} comes from several plugins: {owners}",
            hint=f"Uninstall all but one, or leave one out: ATB_NO_PLUGINS={found[-1].owner.distribution}.",
        )
    return found[0] if found else None


def failed(owner: Owner, what: str, error: BaseException) -> None:
    """Notes that `what`, something of a plugin, is left out because of `error`; a warning says so once.

    PluginError instead where the settings are strict (`ATB_STRICT=1`).
    """
    found = _hooks().note(owner, what, error)
    if settings().plugins.strict:
        raise found from error


def failures() -> str:
    """For a name that nothing installed offers: the plugins that failed, as a sentence; empty if none has."""
    names = ", ".join(dict.fromkeys(str(owner) for owner in _hooks().failed))
    return f" These plugins failed and may offer it: {names} (`atb plugins doctor` says why)." if names else ""


@Once
def _hooks() -> Hooks:
    return Hooks()
