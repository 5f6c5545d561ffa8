# SPDX-License-Identifier: Apache-2.0
"""The reference of the hooks names every hook as the code declares it, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from atb_core.plugins.hookspecs import HOOKS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "hooks.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("hook", HOOKS)
def test_the_page_has_a_section_with_the_exact_signature_of_the_hook(hook: str) -> None:
    section = PAGE.split(f"\n## {hook}\n")[1].split("\n## ")[0]
    assert f"```text\n{hook}() -> list[{HOOKS[hook][0]}]\n```" in section


@pytest.mark.parametrize("hook", HOOKS)
def test_the_page_implements_the_hook_in_an_example(hook: str) -> None:
    assert re.search(rf"^@hookimpl\ndef {hook}\(\):$", PAGE, re.MULTILINE)


def test_the_page_names_no_hook_that_is_not_there() -> None:
    names = set(re.findall(r"\batb_[a-z_]+\b(?![./])", PAGE)) - {"atb_cli", "atb_core", "atb_extras"}
    assert names == set(HOOKS)
