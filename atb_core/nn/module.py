# SPDX-License-Identifier: Apache-2.0
"""Modules whose `forward` records: the parts of torch's `Module` that recording needs, without torch.

A module's children and parameters are its attributes that are modules and parameters, in the order in which they were
first set.
"""

from __future__ import annotations

from collections import UserDict, UserList
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from atb_core.extensions import refuse_uncalled
from atb_core.graph.source import module_scope
from atb_core.nn.parameter import BaseParameter

__all__ = ["Module", "ModuleDict", "ModuleList"]

# Methods that a subclass of a layer of ATB-Models overrides, and what has their place here.
_FORWARD = dict.fromkeys(("forward_pa", "moe_gate", "moe_block", "moe_shared_expert"), "forward")
_WEIGHTS = {"create_module": "__init__", "load_weight": "__init__", "weight_loader": "Parameter.register_processor"}


class Module:
    """Base class of modules that are built from symbolic tensors.

    While `forward` runs, the attribute names through which modules hold each other form the module path of the recorded
    nodes, e.g. `model.layers.3.self_attn`.
    """

    _scope = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # A `forward` of its own may call the others.
        refuse_uncalled(cls, _WEIGHTS if "forward" in vars(cls) else _WEIGHTS | _FORWARD | {"moe_route": "route"})

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs `forward` within the module path of this module."""
        outer_names = [(child, child._scope) for child, _ in _called(self, "")]
        for child, name in _called(self, ""):
            child._scope = name
        try:
            with module_scope(self._scope):
                return self.forward(*args, **kwargs)
        finally:
            # Several modules may hold the same one, each under a different name.
            for child, name in outer_names:
                child._scope = name

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Records the module; a subclass says what."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yields the modules that this one holds, with their names."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value

    def children(self) -> Iterator[Module]:
        """Yields the modules that this one holds."""
        yield from (child for _, child in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Yields this module and all below it once, with their paths."""
        yield from _walk(self, prefix, set())

    def modules(self) -> Iterator[Module]:
        """Yields this module and all below it once."""
        yield from (module for _, module in self.named_modules())

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, BaseParameter]]:
        """Yields the parameters of this module and of all below it once, with their paths."""
        seen: set[int] = set()
        for path, module in self.named_modules(prefix):
            for name, value in vars(module).items():
                if isinstance(value, BaseParameter) and id(value) not in seen:
                    seen.add(id(value))
                    yield f"{path}.{name}" if path else name, value

    def parameters(self) -> Iterator[BaseParameter]:
        """Yields the parameters of this module and of all below it once."""
        yield from (parameter for _, parameter in self.named_parameters())

    def get_submodule(self, path: str) -> Module:
        """Returns the module at a path such as `layers.3.mlp`; AttributeError if there is none."""
        found = self
        for name in path.split(".") if path else ():
            children = dict(found.named_children())
            if name not in children:
                raise AttributeError(f"{type(found).__name__} has no module {name!r}")
            found = children[name]
        return found

    def register_module(self, name: str, module: Module | BaseParameter | None) -> None:
        """Sets an attribute whose name is a value."""
        setattr(self, name, module)

    add_module = register_parameter = register_module

    def add_aliases(self, aliases: Mapping[str, str]) -> None:
        """Adds further names for attributes, as `{alias: attribute}`."""
        self.__dict__.setdefault("_aliases", {}).update(aliases)

    def getattr_by_alias(self, name: str) -> Any:
        """Returns the attribute that `name` is an alias of, or the attribute called `name`."""
        return getattr(self, self.__dict__.get("_aliases", {}).get(name, name))

    def __getattr__(self, name: str) -> Any:
        target = self.__dict__.get("_aliases", {}).get(name)
        if target is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self, target)

    def __repr__(self) -> str:
        held = "".join(f"\n({name}): {child!r}".replace("\n", "\n  ") for name, child in self.named_children())
        return f"{type(self).__name__}({held}\n)" if held else f"{type(self).__name__}()"


class _Container(Module):
    """Base of the modules that only hold others. Like all modules they are compared by identity."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__


class ModuleList(_Container, UserList[Any]):  # type: ignore[misc]
    """List of modules, with all methods of a list; the elements' names are their positions."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__(modules)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yields the modules with their positions as names."""
        yield from ((str(place), module) for place, module in enumerate(self.data))

    def append(self, module: Module) -> ModuleList:  # type: ignore[override]
        """Adds a module at the end."""
        self.data.append(module)
        return self

    def extend(self, modules: Iterable[Module]) -> ModuleList:  # type: ignore[override]
        """Adds modules at the end."""
        self.data.extend(modules)
        return self


class ModuleDict(_Container, UserDict[str, Any]):
    """Dictionary of modules by name, with all methods of a dict."""

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        super().__init__(modules)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yields the modules with their names."""
        yield from self.data.items()


def _walk(module: Module, path: str, seen: set[int]) -> Iterator[tuple[str, Module]]:
    if id(module) in seen:
        return
    seen.add(id(module))
    yield path, module
    for name, child in module.named_children():
        yield from _walk(child, f"{path}.{name}" if path else name, seen)


def _called(parent: Module, prefix: str) -> Iterator[tuple[Module, str]]:
    """Yields children with their names relative to the nearest called module; lists and dicts are not called."""
    for name, child in parent.named_children():
        if isinstance(child, _Container):
            yield from _called(child, f"{prefix}{name}.")
        else:
            yield child, prefix + name
