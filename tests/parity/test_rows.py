# SPDX-License-Identifier: Apache-2.0
"""Every name of ATB-Models is called by a test, or the guide "Bring your model" says what is different."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest
from parity.rows import FUNCTIONS, GUIDE, REFUSED, TABLE
from parity.test_functions import CALLS
from parity.test_functions import REFUSED as REFUSED_CALLS

ROOT = Path(__file__).resolve().parents[2]


@cache
def functions_of(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@cache
def differences() -> list[str]:
    """The cells of the first column of the guide's table."""
    text = (ROOT / "docs/bring-your-model.md").read_text(encoding="utf-8")
    _, _, section = text.partition("## What is different")
    return [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| ")]


@pytest.mark.parametrize("name", TABLE)
def test_a_row_is_called_by_a_test_or_told_by_the_guide(name: str) -> None:
    where = TABLE[name]
    if where.startswith(GUIDE):
        assert any(cell.startswith(where.removeprefix(GUIDE)) for cell in differences())
        return
    file, _, test = where.partition("::")
    assert any(each.startswith(test) for each in functions_of(file)), f"{file} has no {test}"


def test_the_functions_of_the_table_are_those_that_are_called() -> None:
    assert {name for name in FUNCTIONS if name != "paged_attention"} == set(CALLS)
    assert set(REFUSED) <= set(REFUSED_CALLS)
