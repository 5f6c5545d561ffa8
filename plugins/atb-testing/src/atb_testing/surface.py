# SPDX-License-Identifier: Apache-2.0
"""Finds what a package takes from atb_core that is not public."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from atb_core.plugins.api import API_VERSION, public_names

_CORE = "atb_core"


@dataclass(frozen=True)
class Violation:
    """An import of something in atb_core that is not public.

    Attributes:
        path: the file.
        line: the number of the line, from 1.
        name: the module, or the name with its module.
    """

    path: Path
    line: int
    name: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.name} is not part of the public surface (API {API_VERSION})"


def private_imports(package_dir: Path) -> list[Violation]:
    """Finds everything that the Python files below `package_dir` take from atb_core and that is not public.

    Imports inside functions and for type checkers count too. Nothing of the package is imported.

    Raises:
        SyntaxError: a file is not valid Python.
    """
    violations = []
    for path in sorted(Path(package_dir).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        violations += [Violation(path, line, name) for line, name in sorted(set(_violations(tree)))]
    return violations


def _violations(tree: ast.Module) -> Iterator[tuple[int, str]]:
    aliases: dict[str, str] = {}
    inner: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and _is_core(node.module):
            assert node.module is not None
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if not _is_public(full):
                    yield node.lineno, full
                elif full in public_names():
                    aliases[alias.asname or alias.name] = full
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if not _is_core(alias.name):
                    continue
                if alias.name not in public_names():
                    yield node.lineno, alias.name
                aliases[alias.asname or _CORE] = alias.name if alias.asname else _CORE
        elif isinstance(node, ast.Call) and (name := _imported_by_call(node)) and name not in public_names():
            yield node.lineno, name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inner:
            chain, root = _chain(node, inner)
            if root in aliases and (wrong := _first_wrong(aliases[root], chain)):
                yield node.lineno, wrong


def _is_core(module: str | None) -> bool:
    return module is not None and module.partition(".")[0] == _CORE


def _is_public(full: str) -> bool:
    """Returns true for a public module and for a public name of one; never for `*`."""
    module, _, name = full.rpartition(".")
    return full in public_names() or name in public_names().get(module, ())


def _imported_by_call(node: ast.Call) -> str | None:
    """Returns the module of core in `import_module("atb_core...")` or `__import__("atb_core...")`."""
    function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
    first = node.args[0] if node.args else None
    if function not in ("import_module", "__import__") or not isinstance(first, ast.Constant):
        return None
    return first.value if isinstance(first.value, str) and _is_core(first.value) else None


def _chain(node: ast.Attribute, inner: set[int]) -> tuple[list[str], str | None]:
    """Returns the attributes of `root.a.b.c` and the root's name; adds the parts to `inner`, which are then skipped."""
    names = []
    value: ast.expr = node
    while isinstance(value, ast.Attribute):
        names.append(value.attr)
        value = value.value
        inner.add(id(value))
    return names[::-1], value.id if isinstance(value, ast.Name) else None


def _first_wrong(module: str, chain: list[str]) -> str | None:
    """Returns the first part of `module.a.b` that is not public; attributes of a public name are public."""
    for name in chain:
        if name in public_names().get(module, ()):
            return None
        module = f"{module}.{name}"
        if module not in public_names() and not _is_parent(module):
            return module
    return None


def _is_parent(module: str) -> bool:
    """Returns true for a package above a public module: `atb_core.layers` of `atb_core.layers.mlp.mlp`."""
    return any(public.startswith(f"{module}.") for public in public_names())
