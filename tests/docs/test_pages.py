# SPDX-License-Identifier: Apache-2.0
"""The pages tell the truth about the repository: links lead somewhere, and what exists is mentioned."""

from __future__ import annotations

import importlib.util
import pkgutil
import re
import sys
from pathlib import Path
from urllib.parse import unquote

import pages
import pytest

from atb_core.plugins.api import public_names

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ARCHITECTURE = (pages.ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", pages.pages(), ids=lambda page: page.relative_to(pages.ROOT).as_posix())
def test_the_links_of_a_page_lead_to_something(page: Path) -> None:
    dead = []
    for link in pages.links(page):
        if re.match(r"\w+:", link):
            continue
        path, _, fragment = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (fragment and fragment not in pages.anchors(target)):
            dead.append(link)
    assert dead == []


def test_the_architecture_page_gives_a_reason_for_every_dependency() -> None:
    project = tomllib.loads((pages.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    section = ARCHITECTURE.split("## Dependencies")[1].split("\n## ")[0]
    names = [re.split(r"[<>=\[; ]", requirement)[0] for requirement in project["dependencies"]]
    assert [name for name in names if f"| `{name}` |" not in section] == []


@pytest.mark.parametrize("tree", ["atb_core", "csrc"])
def test_the_architecture_page_names_every_folder(tree: str) -> None:
    folders = [p.name for p in (pages.ROOT / tree).iterdir() if p.is_dir() and not p.name.startswith(("_", "."))]
    assert folders
    assert [name for name in folders if f"{name}/" not in ARCHITECTURE] == []


def test_the_contributing_page_names_every_chore() -> None:
    noxfile = (pages.ROOT / "noxfile.py").read_text(encoding="utf-8")
    sessions = re.findall(r'@nox\.session(?:\(name="([\w-]+)".*\))?.*\n(?:@.*\n)*def (\w+)', noxfile)
    text = (pages.ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    names = [name or function for name, function in sessions]
    assert {"demo", "tests", "atb-sim", "wheels"} <= set(names)
    assert [name for name in names if f"nox -s {name}" not in text] == []


def test_both_readmes_give_the_same_commands() -> None:
    def shell(name: str) -> list[str]:
        text = [block.text for block in pages.blocks(pages.ROOT / name) if block.language == "sh"]
        return [line.split("#")[0].strip() for line in "".join(text).splitlines()]

    assert shell("README.md") == shell("README.zh.md")


def test_the_generated_pages_are_fresh() -> None:
    spec = importlib.util.spec_from_file_location("generate", pages.ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    stale = [
        name
        for name, page in generate.PAGES.items()
        if (pages.ROOT / "docs" / name).read_text(encoding="utf-8") != page()
    ]
    assert stale == [], "run python docs/generate.py"


@pytest.mark.parametrize("name", ["write-a-plugin.md", "bring-your-model.md", "ascend.md"])
def test_both_languages_of_a_page_show_the_same_code(name: str) -> None:
    english, chinese = (
        [(block.language, block.text, block.directive) for block in pages.blocks(page)]
        for page in (pages.ROOT / "docs" / name, pages.ROOT / "docs" / "zh" / name)
    )
    assert english
    assert chinese == english


@pytest.mark.parametrize(("english", "chinese"), [("README", "README.zh"), ("docs/quickstart", "docs/zh/quickstart")])
def test_both_languages_of_a_beginner_s_page_show_the_same_python(english: str, chinese: str) -> None:
    first, second = (
        [(block.text, block.directive) for block in blocks if block.language == "python"]
        for blocks in (pages.blocks(pages.ROOT / f"{page}.md") for page in (english, chinese))
    )
    assert first
    assert second == first


def _imports_table(page: Path) -> list[str]:
    """The paths under atb_core in the right column of the page's table of imports."""
    rows = [line.split("|")[2] for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return [path for cell in rows for path in re.findall(r"`(atb_core(?:\.\w+)+)`", cell)]


@pytest.mark.parametrize("page", ["bring-your-model.md", "zh/bring-your-model.md"])
def test_every_path_that_the_migration_guide_names_can_be_imported(page: str) -> None:
    paths = _imports_table(pages.ROOT / "docs" / page)
    assert len(paths) > 20
    missing = []
    for path in paths:
        try:
            pkgutil.resolve_name(path)
        except (ImportError, AttributeError):
            missing.append(path)
    assert missing == []
    public = [path.rpartition(".") for path in paths if path not in public_names()]
    assert [module + "." + name for module, _, name in public if name not in public_names().get(module, ())] == []
