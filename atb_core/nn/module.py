# SPDX-License-Identifier: Apache-2.0
"""Modules whose `forward` records: torch's `Module` plus the path that recorded nodes carry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from atb_core.graph.source import module_scope


class Module(torch.nn.Module):
    """Base of everything that is built from symbolic tensors.

    While `forward` runs, the names under which modules hold each other make up the module path of the
    nodes it records: `model.layers.3.self_attn`.
    """

    _scope = ""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        outer_names = [(child, child._scope) for child, _ in _children(self, "")]
        for child, name in _children(self, ""):
            child._scope = name
        try:
            with module_scope(self._scope):
                return super().__call__(*args, **kwargs)
        finally:
            # A module may be held by several others, each with a name of its own for it.
            for child, name in outer_names:
                child._scope = name

    def add_aliases(self, aliases: Mapping[str, str]) -> None:
        """Lets attributes be found under other names too: `{alias: attribute}`."""
        self.__dict__.setdefault("_aliases", {}).update(aliases)

    def getattr_by_alias(self, name: str) -> Any:
        """The attribute that `name` is an alias of, or the attribute called `name`."""
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
    """A list of modules; its elements' names are their positions."""


class ModuleDict(torch.nn.ModuleDict):
    """Modules by name."""


def _children(parent: torch.nn.Module, prefix: str) -> Iterator[tuple[Module, str]]:
    """Children and their names as seen from the nearest module that is called; lists are not called."""
    for name, child in parent._modules.items():
        if isinstance(child, Module):
            yield child, prefix + name
        elif isinstance(child, (torch.nn.ModuleList, torch.nn.ModuleDict)):
            yield from _children(child, f"{prefix}{name}.")
