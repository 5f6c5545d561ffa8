# SPDX-License-Identifier: Apache-2.0
"""The public surface as text, with signatures: a change of it is a difference that somebody reads.

    python -m atb_core.plugins.api_listing > tests/plugins/api_v1.txt

A test compares the file with the code. Lines may be added within an API version. A line that goes or changes is
either announced (`atb_core.plugins.deprecation`) or belongs to the next API version.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from atb_core.plugins.api_surface import SURFACE


def listing() -> str:
    """Every public name with its signature, and the public members of classes. Imports all of the surface."""
    lines: list[str] = []
    places: dict[int, str] = {}
    for module, names in SURFACE.items():
        lines.append(module)
        home = import_module(module)
        for name in names:
            lines += (f"    {line}" for line in _described(name, getattr(home, name), module, places))
    return "\n".join(lines) + "\n"


def _described(name: str, value: Any, module: str, places: dict[int, str]) -> Iterator[str]:
    """The lines of one name; something that has been listed under another is described there."""
    if inspect.ismodule(value):
        yield f"{name}: module"
        return
    if not inspect.isclass(value) and not inspect.isroutine(value):
        yield f"{name}: {type(value).__name__}"
        return
    known = places.setdefault(id(value), f"{module}.{name}")
    if known != f"{module}.{name}":
        yield f"{name}: {known}"
    elif inspect.isclass(value):
        yield f"class {name}{_bases(value)}"
        yield from (f"    {line}" for line in _members(value))
    else:
        yield f"{name}{_signature(value)}"


def _bases(cls: type) -> str:
    names = [base.__name__ for base in cls.__bases__ if base is not object]
    return f"({', '.join(names)})" if names else ""


def _members(cls: type) -> Iterator[str]:
    if issubclass(cls, enum.Enum):
        yield from (f"{member.name}" for member in cls)
        return
    if "__init__" in vars(cls) and not getattr(cls, "_is_protocol", False):
        yield f"__init__{_signature(cls.__init__)}"
    # The fields of a dataclass stand in the signature of its `__init__` already.
    annotated = {} if dataclasses.is_dataclass(cls) else inspect.get_annotations(cls)
    fields = {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    for name in sorted({*vars(cls), *annotated} - fields):
        if not name.startswith("_"):
            yield _member(name, vars(cls).get(name), annotated.get(name))


def _member(name: str, value: Any, annotation: Any) -> str:
    function = getattr(value, "__func__", value)
    if inspect.isfunction(function):
        kind = {classmethod: "classmethod ", staticmethod: "staticmethod "}.get(type(value), "")
        return f"{kind}{name}{_signature(function)}"
    if annotation is not None:
        return f"{name}: {_type(annotation)}"
    return f"{name}: {type(value).__name__ if hasattr(value, '__get__') else 'attribute'}"


def _signature(function: Any) -> str:
    """Parameters with kinds, annotations as they are written, and defaults where these are plain values."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return "(...)"
    parts: list[str] = []
    star = False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            star = True
        elif parameter.kind is parameter.KEYWORD_ONLY and not star:
            parts.append("*")
            star = True
        parts.append(_parameter(parameter))
    returns = "" if signature.return_annotation is signature.empty else f" -> {_type(signature.return_annotation)}"
    return f"({', '.join(parts)}){returns}"


def _parameter(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL.name: "*", parameter.VAR_KEYWORD.name: "**"}
    text = f"{stars.get(parameter.kind.name, '')}{parameter.name}"
    if parameter.annotation is not parameter.empty:
        text += f": {_type(parameter.annotation)}"
    if parameter.default is parameter.empty:
        return text
    default = parameter.default
    plain = default is None or type(default) in (bool, int, float, str, tuple)
    return f"{text} = {default!r}" if plain else f"{text} = ..."


def _type(annotation: Any) -> str:
    if isinstance(annotation, str):
        return annotation
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


if __name__ == "__main__":
    print(listing(), end="")
