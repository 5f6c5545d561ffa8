# SPDX-License-Identifier: Apache-2.0
"""Checkpoint formats that plugins bring: which one a path is of, and what is read through it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from atb_core.checkpoint.base import WeightLoader
from atb_core.errors import AtbError, ConfigError, PluginError, WeightsError
from atb_core.plugins import hooks

if TYPE_CHECKING:
    from atb_core.plugins.contributions import WeightFormat

T = TypeVar("T")


def find_format(path: Path) -> hooks.Offered[WeightFormat] | None:
    """The format of a plugin that claims `path`, `None` if none does or if it is a path of core's own formats.

    PluginError if several plugins claim it. A format that fails to look at it is told of and left out.
    """
    if path.suffix in (".gguf", ".safetensors") or not path.exists() or any(path.glob("*.safetensors")):
        return None
    return hooks.only([offer for offer in hooks.weight_formats() if _claims(offer, path)], f"a format for {path}")


def open_foreign(found: hooks.Offered[WeightFormat], path: Path) -> WeightLoader:
    """The checkpoint at `path`; WeightsError if it cannot be opened, PluginError if the plugin gives no loader."""
    loader = _call(found, found.value.open, path, WeightsError)
    if not isinstance(loader, WeightLoader):
        raise PluginError(f"{_named(found)} opened {path} as {loader!r}, which is no WeightLoader")
    return loader


def foreign_config(found: hooks.Offered[WeightFormat], path: Path) -> dict[str, Any] | None:
    """What the format says stands for the `config.json` of `path`; `None` where that is a file of its own."""
    if found.value.config is None:
        return None
    config = _call(found, found.value.config, path, ConfigError)
    if not isinstance(config, dict):
        raise PluginError(f"{_named(found)} gives {config!r} as the configuration of {path}, which is no dict")
    return config


def format_names() -> str:
    """The formats of plugins, for messages: `, Foo archive (atb-foo 1.0)`; empty if there is none."""
    return "".join(f", {offer.value.name} ({offer.owner})" for offer in hooks.weight_formats())


def _claims(offer: hooks.Offered[WeightFormat], path: Path) -> bool:
    try:
        return bool(offer.value.matches(path))
    # A plugin is foreign code: a format that cannot even look at a file must not keep others from it.
    except Exception as error:
        hooks.failed(offer.owner, f"the weight format {offer.value.name!r}, asked about {path}", error)
        return False


def _call(found: hooks.Offered[WeightFormat], function: Callable[[Path], T], path: Path, kind: type[AtbError]) -> T:
    try:
        return function(path)
    except (AtbError, OSError, MemoryError):
        raise
    except Exception as error:
        raise kind(
            f"{path} cannot be read: {_named(found)} failed with {type(error).__name__}: {error}",
            hint="The file may be damaged; if it is not, tell the plugin's author.",
        ) from error


def _named(found: hooks.Offered[WeightFormat]) -> str:
    return f"the weight format {found.value.name!r} of {found.owner}"
