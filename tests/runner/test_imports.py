# SPDX-License-Identifier: Apache-2.0
"""The cost of importing the package, and what it offers."""

from __future__ import annotations

import subprocess
import sys

import pytest

import atb_core


@pytest.mark.parametrize("module", ["atb_core", "atb_core.runner.sampling_params"])
def test_importing_loads_neither_torch_nor_a_tokenizer(module: str) -> None:
    heavy = "{'torch', 'transformers', 'tokenizers', 'numpy', 'jinja2', 'gguf'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_every_public_name_is_there_and_listed() -> None:
    for name in atb_core.__all__:
        assert getattr(atb_core, name) is not None
        assert name in dir(atb_core)


WITHOUT_ATB_SERVE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == "atb_serve":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import atb_core

[getattr(atb_core, name) for name in dir(atb_core)]
atb_core.AsyncRunner
"""


def test_without_atb_serve_the_error_names_it_and_other_names_are_there() -> None:
    result = subprocess.run([sys.executable, "-c", WITHOUT_ATB_SERVE], capture_output=True, text=True)
    assert "ImportError: AsyncRunner is in the distribution atb-serve, which is not installed: pip" in result.stderr


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = atb_core.nothing
