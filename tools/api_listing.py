# SPDX-License-Identifier: Apache-2.0
"""Describes the public surface as a Markdown page: every public name with its signature and first sentence.

`python docs/generate.py` writes the page, `docs/api.md`. A test compares the page with the code, so a change of the
surface is a difference that somebody reviews.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from atb_core.plugins.api import API_VERSION, PUBLIC_MODULES

_NOTE = "<!-- Written by docs/generate.py; change the code instead. -->"
_LONGEST_DEFAULT = 60
_FURTHER = "Further import paths"
# Described on a page of its own.
_ELSEWHERE = {
    "atb_core.graph.ops": "The classes of ops, for `record` and for fusions: [Ops](ops.md) describes them.",
    "atb_core.nn.functional": "Functions that record ops: [Ops](ops.md#functions) lists them.",
}


def api_page() -> str:
    """Returns the page. Imports every public module."""
    parts = [
        "# Public API",
        _NOTE,
        f"What users, families, features and hooks may import from atb_core: version {API_VERSION} of the plugin API "
        "(`atb_core.API_VERSION`). Everything else may change with any release. The tests of a plugin fail where it "
        "imports something that is not listed here ([how](hooks.md#the-public-surface)). Authors of families also use "
        "`atb_testing`, the [conformance kit](write-a-plugin.md#5-the-tests). `ModelTorch` and `load_native_library` "
        "of `atb_core` are those of the package atb-cpp-models: [models built in C++](cpp-models.md).",
    ]
    places: dict[int, str] = {}
    for title, modules in PUBLIC_MODULES.items():
        parts.append(f"## {title}")
        if title == _FURTHER:
            parts.append(_further(modules, places))
            continue
        for module in modules:
            parts += _section(module, places)
    return "\n\n".join(parts) + "\n"


def _section(module: str, places: dict[int, str]) -> Iterator[str]:
    """Yields the heading, the first sentence and the names of a module."""
    home = import_module(module)
    yield f"### {module}"
    if module in _ELSEWHERE:
        yield _ELSEWHERE[module]
        return
    yield _first_sentence(inspect.getdoc(home))
    yield described_names(module, places)


def described_names(module: str, places: dict[int, str]) -> str:
    """Returns the list of a module's names.

    Args:
        module: the name of a module with an `__all__`.
        places: the place of the description of each object, by `id`; this module's objects are added.
    """
    home = import_module(module)
    return "\n".join(line for name in home.__all__ for line in _described(name, getattr(home, name), module, places))


def _further(modules: tuple[str, ...], places: dict[int, str]) -> str:
    """Returns the table of modules whose names stand above; ValueError for a name of ours that does not."""
    rows = ["| import path | names |", "|---|---|"]
    for module in modules:
        home = import_module(module)
        # What a further distribution implements is described there.
        own = [name for name in home.__all__ if getattr(home, name).__module__.partition(".")[0] == "atb_core"]
        lost = [name for name in own if id(getattr(home, name)) not in places]
        if lost:
            raise ValueError(f"{module} is a further import path, but no other public module has {', '.join(lost)}")
        rows.append(f"| `{module}` | {', '.join(f'`{name}`' for name in home.__all__)} |")
    return "\n".join(rows)


def _described(name: str, value: Any, module: str, places: dict[int, str]) -> Iterator[str]:
    """Yields the list items of one name; a name that stands above under another path refers to it."""
    own = f"{module}.{getattr(value, '__name__', name)}"
    place = places.setdefault(id(value), own) if _identifies(value) else own
    if inspect.ismodule(value):
        yield f"* `{name}`: the module [`{value.__name__}`](#{_anchor(value.__name__)})"
    elif _identifies(value) and value.__name__ != name and value.__name__ in import_module(module).__all__:
        yield f"* `{name}`: another name of `{value.__name__}`"
    elif place != own:
        yield f"* `{name}`: `{place}`"
    elif inspect.isclass(value):
        yield f"* `class {name}{_constructor(value)}`{_tail(vars(value).get('__doc__'), name)}"
        yield from (f"  {line}" for line in _members(value))
    elif inspect.isroutine(value):
        yield f"* `{name}{_signature(value)}`{_tail(inspect.getdoc(value))}"
    elif isinstance(value, str) and name[0].isupper():
        yield f"* `{name} = {value}`: a type."
    else:
        yield f"* `{name}: {type(value).__name__}`"


def _identifies(value: Any) -> bool:
    """Returns True for objects of which there is one: equal constants may be the same object by chance."""
    return inspect.isclass(value) or inspect.isroutine(value)


def _anchor(module: str) -> str:
    return re.sub(r"[^\w\- ]", "", module)


def _tail(doc: str | None, name: str = "") -> str:
    """Returns the first sentence behind a colon; empty without one, and for what a dataclass writes itself."""
    generated = bool(name) and (doc or "").startswith(f"{name}(")
    return f": {_first_sentence(inspect.cleandoc(doc))}" if doc and not generated else ""


def _first_sentence(doc: str | None) -> str:
    paragraph = " ".join((doc or "").split("\n\n")[0].split())
    # A full stop ends a sentence where a space and a capital follow, or the paragraph ends.
    match = re.match(r"(.*?[.:])(?=\s+[A-Z`*]|$)", paragraph)
    sentence = match[1] if match else paragraph
    return sentence.rstrip(":.") + "." if sentence else ""


def _constructor(cls: type) -> str:
    """Returns the parameters of a class that its author wrote or whose fields are its parameters; else its bases."""
    if issubclass(cls, enum.Enum) or getattr(cls, "_is_protocol", False):
        return ""
    if "__init__" in vars(cls):
        return _signature(vars(cls)["__init__"], returns=False)
    bases = [base.__name__ for base in cls.__bases__ if base is not object]
    return f"({', '.join(bases)})" if bases else ""


def _members(cls: type) -> Iterator[str]:
    if issubclass(cls, enum.Enum):
        yield f"* {', '.join(f'`{member.name}`' for member in cls)}"
        return
    # The fields of a dataclass are the parameters of its constructor.
    annotated = {} if dataclasses.is_dataclass(cls) else inspect.get_annotations(cls)
    fields = {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    for name in sorted({*vars(cls), *annotated} - fields):
        if not name.startswith("_"):
            yield _member(cls, name, annotated.get(name))


def _member(cls: type, name: str, annotation: Any) -> str:
    value = vars(cls).get(name)
    function = getattr(value, "__func__", value)
    doc = _doc(cls, name) if hasattr(value, "__get__") else None
    if inspect.isfunction(function):
        kind = {classmethod: "classmethod ", staticmethod: "staticmethod "}.get(type(value), "")
        return f"* `{kind}{name}{_signature(function)}`{_tail(doc)}"
    if annotation is not None:
        return f"* `{name}: {_type(annotation)}`"
    getter = getattr(value, "fget", None) or getattr(value, "func", None)
    returns = inspect.get_annotations(getter).get("return") if getter else None
    return f"* `{name}{f': {_type(returns)}' if returns else ''}`{_tail(doc if getter else None)}"


def _doc(cls: type, name: str) -> str | None:
    """Returns the docstring of a member from the first of the package's classes that has one, not from torch's."""
    own = [base for base in cls.__mro__ if base.__module__.startswith("atb_")]
    return next(filter(None, (getattr(vars(base).get(name), "__doc__", None) for base in own)), None)


def _signature(function: Any, returns: bool = True) -> str:
    """Returns parameters with kinds and annotations as written, and defaults where these are short plain values."""
    signature = inspect.signature(function)
    parts: list[str] = []
    star = False
    for parameter in signature.parameters.values():
        if parameter.name in ("self", "cls") or parameter.name.startswith("_"):
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            star = True
        elif parameter.kind is parameter.KEYWORD_ONLY and not star:
            parts.append("*")
            star = True
        parts.append(_parameter(parameter))
    answer = signature.return_annotation
    arrow = f" -> {_type(answer)}" if returns and answer is not signature.empty else ""
    return f"({', '.join(parts)}){arrow}"


def _parameter(parameter: inspect.Parameter) -> str:
    stars = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}
    text = f"{stars.get(parameter.kind.name, '')}{parameter.name}"
    if parameter.annotation is not parameter.empty:
        text += f": {_type(parameter.annotation)}"
    if parameter.default is parameter.empty:
        return text
    default = parameter.default
    if isinstance(default, enum.Enum):
        return f"{text} = {type(default).__name__}.{default.name}"
    plain = default is None or type(default) in (bool, int, float, str, tuple)
    return f"{text} = {default!r}" if plain and len(repr(default)) <= _LONGEST_DEFAULT else f"{text} = ..."


def _type(annotation: Any) -> str:
    if isinstance(annotation, str):
        return annotation
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
