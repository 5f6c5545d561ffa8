# SPDX-License-Identifier: Apache-2.0
"""Imports of what is not public are found wherever they stand in a package."""

from __future__ import annotations

from pathlib import Path

import pytest

from atb_testing.surface import private_imports

PRIVATE = {
    "a private module": ("import atb_core.runner.sampler", "atb_core.runner.sampler"),
    "a private name of a public module": (
        "from atb_core.models.base.router import _MAX_JSON_BYTES",
        "atb_core.models.base.router._MAX_JSON_BYTES",
    ),
    "a name of a private module": (
        "from atb_core.runner.sampler import Sampler",
        "atb_core.runner.sampler.Sampler",
    ),
    "a private module as a name": ("from atb_core import settings", "atb_core.settings"),
    "everything": ("from atb_core.nn.functional import *", "atb_core.nn.functional.*"),
    "inside a function": ("def f():\n    from atb_core.engine import cpu", "atb_core.engine.cpu"),
    "for the type checker": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from atb_core.engine.native import NativeBackend",
        "atb_core.engine.native.NativeBackend",
    ),
    "by attribute": ("import atb_core\nx = atb_core.runner.sampler.Sampler", "atb_core.runner.sampler"),
    "by attribute of a public module": (
        "from atb_core.nn import functional as F\nF.author_line()",
        "atb_core.nn.functional.author_line",
    ),
    "by name": ("from importlib import import_module\nimport_module('atb_core._cpu')", "atb_core._cpu"),
}


@pytest.mark.parametrize("case", PRIVATE)
def test_an_import_outside_of_the_surface_is_found(case: str, tmp_path: Path) -> None:
    source, name = PRIVATE[case]
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "module.py").write_text(f'"""A plugin."""\n\n{source}\n', encoding="utf-8")
    (violation,) = private_imports(tmp_path)
    assert violation.name == name
    assert source.splitlines()[violation.line - 3].strip()
    assert str(violation).startswith(f"{tmp_path}/inner/module.py:{violation.line}: {name} is not part of the public")


PUBLIC = """
import json, torch
import atb_core
import atb_core.nn.functional
from atb_core.nn.functional.index import gather
import atb_core.graph.ops as ops
from . import sibling
from .engine import base
from atb_core import ModelRunner, nn
from atb_core.nn import functional as F
from atb_core.graph import Tensor

atb_core.nn.functional.linear, atb_core.__version__, atb_core.layers.mlp.mlp.Mlp
ops.Linear.reference, F.ActType.SWISH, nn.Module.forward, ModelRunner.generate, Tensor.to
json.atb_core
"""


def test_imports_of_the_surface_and_of_others_are_none(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(PUBLIC, encoding="utf-8")
    assert private_imports(tmp_path) == []
