# SPDX-License-Identifier: Apache-2.0
"""Modules whose `forward` records: torch's `Module` plus the module path that recorded nodes carry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from atb_core.graph.source import module_scope

__all__ = ["Module", "ModuleDict", "ModuleList"]


class Module(torch.nn.Module):
    """Base class of modules that are built from symbolic tensors.

    While `forward` runs, the attribute names through which modules hold each other form the module path of the recorded
    nodes, e.g. `model.layers.3.self_attn`.
    """

    _scope = ""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs `forward` within the module path of this module."""
        outer_names = [(child, child._scope) for child, _ in _children(self, "")]
        for child, name in _children(self, ""):
            child._scope = name
        try:
            with module_scope(self._scope):
                return super().__call__(*args, **kwargs)
        finally:
            # Several modules may hold the same one, each under a different name.
            for child, name in outer_names:
                child._scope = name

    def add_aliases(self, aliases: Mapping[str, str]) -> None:
        """Adds further names for attributes, as `{alias: attribute}`."""
        self.__dict__.setdefault("_aliases", {}).update(aliases)

    def getattr_by_alias(self, name: str) -> Any:
        """Returns the attribute that `name` is an alias of, or the attribute called `name`."""
        return getattr(self, self.__dict__.get("_aliases", {}).get(name, name))

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            target = self.__dict__.get("_aliases", {}).get(name)
            if target is None:
                raise
        return getattr(self, target)


class ModuleList(torch.nn.ModuleList):
    """List of modules; the elements' names are their positions."""


class ModuleDict(torch.nn.ModuleDict):
    """Dictionary of modules by name."""


def _children(parent: torch.nn.Module, prefix: str) -> Iterator[tuple[Module, str]]:
    """Yields children with their names relative to the nearest called module; lists and dicts are not called."""
    for name, child in parent._modules.items():
        if isinstance(child, Module):
            yield child, prefix + name
        elif isinstance(child, (torch.nn.ModuleList, torch.nn.ModuleDict)):
            yield from _children(child, f"{prefix}{name}.")
