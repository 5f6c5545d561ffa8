# SPDX-License-Identifier: Apache-2.0
"""Checks that "Write a plugin" builds the example in the repository, and that family passes the kit."""

from __future__ import annotations

from pathlib import Path

import packages
import pages
import pytest

from atb_testing.scaffold.write import write_package

pytest.importorskip("copier")
PAGE = pages.ROOT / "docs" / "write-a-plugin.md"
EXAMPLE = pages.ROOT / "examples" / "atb-olmo2"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package that a reader of the page has at its end, outside of the repository."""
    package = tmp_path_factory.mktemp("reader") / "atb-olmo2"
    write_package("atb-olmo2", package, like="llama")
    for block in pages.blocks(PAGE):
        if block.directive.startswith("file "):
            (package / block.directive.removeprefix("file ")).write_text(block.text, encoding="utf-8")
    return package


def _files(folder: Path) -> dict[str, str]:
    """Contents by path. The README is left out: the page leaves it to the author."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    wanted = {name: path for name, path in found.items() if name != "README.md" and "cache" not in name}
    return {name: path.read_text(encoding="utf-8") for name, path in wanted.items()}


def test_the_page_builds_the_example(written: Path) -> None:
    assert _files(EXAMPLE) == _files(written)


def test_the_model_takes_less_than_150_lines() -> None:
    files = (EXAMPLE / "src" / "atb_olmo2").glob("*.py")
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files) < 150


@pytest.mark.timeout(1000)
@pytest.mark.parametrize("select", [packages.BRIEFLY, pytest.param("", marks=pytest.mark.slow)])
def test_the_family_passes_the_kit(written: Path, tmp_path: Path, select: str) -> None:
    packages.install(written, tmp_path / "site")
    result = packages.run_kit(written, tmp_path, "-k", select)
    assert result.returncode == 0, result.stdout + result.stderr
