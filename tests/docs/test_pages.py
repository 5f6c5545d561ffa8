# SPDX-License-Identifier: Apache-2.0
"""The pages tell the truth about the repository: links lead somewhere, and what exists is mentioned."""

from __future__ import annotations

import importlib.util
import pkgutil
import re
import sys
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import pages
import pytest

from atb_core.plugins.api import public_names
from atb_core.settings import load_settings

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
    assert {"demo", "tests", "atb-coverage", "wheels"} <= set(names)
    assert [name for name in names if f"nox -s {name}" not in text] == []


def test_continuous_integration_runs_every_session_that_checks_something() -> None:
    noxfile = (pages.ROOT / "noxfile.py").read_text(encoding="utf-8")
    sessions = set(re.findall(r'@nox\.session(?:\(name="([\w-]+)")?', noxfile)) | set(re.findall(r"def (\w+)", noxfile))
    scripts = [pages.ROOT / ".ci" / "run", pages.ROOT / ".github" / "workflows" / "ci.yml"]
    words = set(re.findall(r"[\w-]+", "\n".join(path.read_text(encoding="utf-8") for path in scripts)))
    # These do something for a person: install, measure, test with plugins and programs of others.
    assert {name.replace("_", "-") for name in sessions if name} - words == {
        "demo",
        "dev",
        "bench",
        "clients",
        "ecosystem",
        "instructions",
        "ray",
    }


def generator() -> ModuleType:
    """Returns the module docs/generate.py."""
    spec = importlib.util.spec_from_file_location("generate", pages.ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    return generate


def test_the_generated_pages_are_fresh() -> None:
    stale = [
        name
        for name, page in generator().PAGES.items()
        if (pages.ROOT / "docs" / name).read_text(encoding="utf-8") != page()
    ]
    assert stale == [], "run python docs/generate.py"


def test_every_variable_that_is_read_is_listed() -> None:
    folders = ("atb_core", "plugins", "csrc")
    sources = [path for folder in folders for path in (pages.ROOT / folder).rglob("*.[pc][yp]*")]
    name = re.compile(r"""["']((?:ATB|ASCEND|HF|MODELSCOPE|TORCH)_[A-Z_]+)["']""")
    code = [path for path in sources if path.suffix in (".py", ".cpp") and "tests" not in path.parts]
    read = {match for path in code for match in name.findall(path.read_text(encoding="utf-8"))}
    generate = generator()
    listed = {variable.partition("=")[0] for _, _, variable, _ in generate.KEYS} | set(generate.VARIABLES)
    explained_with_others = {"HF_HUB_CACHE", "ASCEND_TOOLKIT_HOME", "ATB_SERVE"}
    assert {"ATB_NUM_THREADS", "ATB_CPU_ISA", "ATB_HOME_PATH", "ATB_CACHE"} <= read
    assert read - listed <= explained_with_others


def test_the_example_of_a_settings_file_has_every_key_and_is_accepted(tmp_path: Path) -> None:
    page = (pages.ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    (tmp_path / "config.toml").write_text(page.split("```toml\n")[1].split("```")[0])
    read = load_settings(tmp_path / "config.toml", {})
    assert (read.graph, read.plugins.strict, sorted(read.models)) == ("cpp", True, ["default", "qwen"])
    assert read.plugins.only and read.plugins.disabled and read.plugins.prefer


# English pages that a beginner reads, which therefore have a Chinese page.
MAIN_PATH = {"README.md": "README.zh.md"} | {
    f"docs/{name}.md": f"docs/zh/{name}.md"
    for name in (
        "install",
        "quickstart",
        "models",
        "settings",
        "recipes",
        "serve",
        "troubleshooting",
        "write-a-plugin",
        "bring-your-model",
        "ascend",
    )
}


def _outline(page: Path) -> list[object]:
    """Returns the parts of a page, apart from its prose: headings, code, items of lists and rows of tables, in order.

    Comments of shell commands are prose.
    """
    code = iter(pages.blocks(page))
    found: list[object] = []
    inside = False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            inside = not inside
            if inside:
                block = next(code)
                text = re.sub(r" *#.*", "", block.text) if block.language == "sh" else block.text
                found.append((block.language, text, block.directive))
        elif not inside and (match := re.match(r"(#+|\*|\d+\.|\|)(?= )", line)):
            found.append("list" if match[1][0].isdigit() else match[1])
    return found


def test_every_chinese_page_is_held_to_its_english_one() -> None:
    chinese = {path.relative_to(pages.ROOT).as_posix() for path in (pages.ROOT / "docs" / "zh").glob("*.md")}
    assert chinese | {"README.zh.md"} == set(MAIN_PATH.values()) | {"docs/zh/index.md"}


@pytest.mark.parametrize(("english", "chinese"), MAIN_PATH.items())
def test_the_chinese_page_has_the_headings_code_lists_and_tables_of_the_english_one(english: str, chinese: str) -> None:
    assert _outline(pages.ROOT / chinese) == _outline(pages.ROOT / english)


def test_the_messages_that_troubleshooting_explains_exist() -> None:
    sources = [*pages.ROOT.glob("atb_core/**/*.py"), *pages.ROOT.glob("plugins/*/src/**/*.py")]
    code = re.sub(r'"\s*\n\s*f?"', "", "\n".join(source.read_text(encoding="utf-8") for source in sources))
    rows = (pages.ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8").splitlines()
    quoted = [text for row in rows if row.startswith("| `") for text in re.findall("`([^`]+)`", row.split(" | ")[0])]
    pieces = [piece.strip() for text in quoted for piece in re.split(r"\.\.\.|'max_tokens'|\d+", text)]
    assert len(pieces) > 20
    # The kernel's word, which is not ours.
    assert [piece for piece in pieces if piece not in code and piece != "Killed"] == []


@pytest.mark.parametrize("folder", ["docs", "docs/zh"])
def test_the_index_lists_every_page_of_its_folder(folder: str) -> None:
    index = pages.ROOT / folder / "index.md"
    listed = {(index.parent / link).resolve() for link in pages.links(index)}
    assert set((pages.ROOT / folder).glob("*.md")) - listed == {index}


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
