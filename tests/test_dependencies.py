# SPDX-License-Identifier: Apache-2.0
"""The imports of the package are those that its metadata declares, no more and no less."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parents[1]
# Distributions whose module has another name; and what is imported only where an extra installed it.
MODULES: dict[str, str] = {}
OPTIONAL = {"transformers", "torch", "torch_npu"}


def _imports(path: Path) -> set[str]:
    """Top-level modules that a file imports when it runs; imports for type checkers do not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_the_declared_dependencies_are_those_that_are_imported() -> None:
    package = ROOT / "atb_core"
    imported = set().union(*map(_imports, package.rglob("*.py")))
    outside = {name for name in imported if name not in sys.stdlib_module_names} - {"atb_core"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [re.split(r"[<>=\[; ]", requirement)[0] for requirement in project["dependencies"]]
    declared = {MODULES.get(name, name.replace("-", "_")) for name in names}
    assert outside - declared - OPTIONAL == set()
    assert declared - outside == set()
