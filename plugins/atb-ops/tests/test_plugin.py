# SPDX-License-Identifier: Apache-2.0
"""The package gives its functions to `nn.functional` and its functions import the public API alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from atb_core.nn import functional
from atb_core.plugins.api import PUBLIC_MODULES
from atb_ops import functions, hooks, latent_attention


@pytest.mark.parametrize("name", ["std", "norm", "copy_blocks", "gating", "group_topk"])
def test_the_core_finds_the_functions(name: str) -> None:
    assert getattr(functional, name) is getattr(functions, name)


def test_the_core_finds_the_attention() -> None:
    from atb_core.nn.functional import multi_latent_attention

    assert multi_latent_attention is latent_attention.multi_latent_attention


def test_functions_import_the_public_api_alone() -> None:
    public = {module for modules in PUBLIC_MODULES.values() for module in modules}
    for path in (Path(module.__file__) for module in (functions, hooks, latent_attention)):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("atb_core"):
                assert node.module in public, (path.name, node.module)
