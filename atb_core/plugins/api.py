# SPDX-License-Identifier: Apache-2.0
"""Lists the modules that plugins and users may import, and finds imports of others.

The public names of a module are those of its `__all__`; `docs/api.md` describes them. They keep their meaning within an
API version. Everything else in `atb_core` may change with any release.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Final

__all__ = ["API_VERSION", "PUBLIC_MODULES", "SUPPORTED_API_VERSIONS", "Violation", "private_imports", "public_names"]

#: The version of the plugin API that this core offers.
API_VERSION = 1
#: The versions that plugins may have been written for: this one and the one before.
SUPPORTED_API_VERSIONS = frozenset({API_VERSION})
#: The public modules by what they are for. Further paths lead to names that stand in other public modules.
PUBLIC_MODULES: Final[Mapping[str, tuple[str, ...]]] = {
    "Run models": ("atb_core", "atb_core.runner.tokenizer"),
    "Record graphs": (
        "atb_core.graph",
        "atb_core.graph.ops",
        "atb_core.graph.torch_dtypes",
        "atb_core.nn",
        "atb_core.nn.functional",
        "atb_core.nn.modules",
        "atb_core.nn.distributed",
        "atb_core.nn.distributed.mapping",
        "atb_core.nn.network",
    ),
    "Write a model family": (
        "atb_core.models.base.router",
        "atb_core.models.base.config",
        "atb_core.models.base.moe_config",
        "atb_core.models.base.window_config",
        "atb_core.models.base.mindie_llm_config",
        "atb_core.models.base.modeling_python",
        "atb_core.models.base.modeling_moe",
        "atb_core.models.base.decoder_causal_lm",
        "atb_core.layers",
        "atb_core.layers.attention.attention",
        "atb_core.layers.attention.metadata",
        "atb_core.layers.embedding.word_embedding",
        "atb_core.layers.linear",
        "atb_core.layers.mlp.mlp",
        "atb_core.layers.moe.fused_experts",
        "atb_core.layers.moe.moe",
        "atb_core.layers.norm.normalization",
        "atb_core.checkpoint",
        "atb_core.models.cpp",
    ),
    "Write a feature": ("atb_core.features.step",),
    "Write hooks": ("atb_core.plugins", "atb_core.graph.passes", "atb_core.engine.kernels"),
    "Further import paths": (
        "atb_core.errors",
        "atb_core.layers.linear.linear",
        "atb_core.models.base.feature_decorator.v3.base_decorator",
        "atb_core.models.base.flash_causal_lm_v3",
        "atb_core.nn.distributed.distributed",
        "atb_core.nn.module",
        "atb_core.nn.network_manager",
        "atb_core.nn.parameter",
        "atb_core.nn.tensor",
    ),
}

_CORE = "atb_core"


@functools.cache
def public_names() -> Mapping[str, frozenset[str]]:
    """Returns the names in `__all__` of every public module; imports these modules."""
    modules = [module for group in PUBLIC_MODULES.values() for module in group]
    return {module: frozenset(import_module(module).__all__) for module in modules}


@dataclass(frozen=True)
class Violation:
    """An import of something in atb_core that is not public.

    Attributes:
        path: The file.
        line: The number of the line, from 1.
        name: The module, or the name with its module.
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
        SyntaxError: A file is not valid Python.
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
    """Returns True for a public module and for a public name of one; never for `*`."""
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
    """Returns True for a package above a public module: `atb_core.layers` of `atb_core.layers.mlp.mlp`."""
    return any(public.startswith(f"{module}.") for public in public_names())
