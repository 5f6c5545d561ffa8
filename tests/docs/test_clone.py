# SPDX-License-Identifier: Apache-2.0
"""The README's Python examples run where the README leaves its reader: in the root of the clone."""

from __future__ import annotations

import subprocess
import sys

import pages
import pytest


def _examples() -> list[object]:
    """The Python blocks of the README as test cases, in the weights lane where it says so."""
    cases = []
    for block in pages.blocks(pages.ROOT / "README.md"):
        if block.language == "python":
            marks = [pytest.mark.weights] if block.directive == "weights" else []
            cases.append(pytest.param(block.text, marks=marks, id=f"line {block.line}"))
    return cases


EXAMPLES = _examples()


def test_the_readme_has_examples() -> None:
    assert len(EXAMPLES) == 2


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_of_the_readme_runs_in_the_root_of_the_clone(example: str) -> None:
    command = [sys.executable, "-"]
    done = subprocess.run(command, input=example, cwd=pages.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
