# SPDX-License-Identifier: Apache-2.0
"""Builds the documentation as a site, in build/site/html: `python tools/build_site.py`.

The pages stay where they are, so that their links work on a code host too. They are copied into the same folders, with
the files that they link; the navigation is that of docs/index.md and docs/zh/index.md. A link or an anchor that leads
nowhere fails the build.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from repository import ROOT

SITE = ROOT / "build" / "site"
PAGES = SITE / "pages"
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_ENTRY = re.compile(r"^\* \[(?P<title>[^\]]+)\]\((?P<path>[^)#]+)\)", flags=re.MULTILINE)

# The theme's own settings; docs_dir and site_dir are relative to this file.
_CONFIG = """\
[project]
site_name = "atb_core"
site_description = "Large language models on static graphs: CPU and Ascend"
docs_dir = "pages"
site_dir = "html"
use_directory_urls = false
nav = {nav}

[project.theme]
features = ["navigation.tabs", "navigation.top", "toc.follow", "content.code.copy", "search.highlight"]
font = false

[[project.theme.palette]]
media = "(prefers-color-scheme: light)"
scheme = "default"
toggle = {{ icon = "lucide/sun", name = "Dark" }}

[[project.theme.palette]]
media = "(prefers-color-scheme: dark)"
scheme = "slate"
toggle = {{ icon = "lucide/moon", name = "Light" }}

[project.markdown_extensions.admonition]
[project.markdown_extensions.attr_list]
[project.markdown_extensions.md_in_html]
[project.markdown_extensions.tables]
[project.markdown_extensions.toc]
permalink = true
slugify = {{ object = "pymdownx.slugs.slugify", kwds = {{ case = "lower" }} }}
[project.markdown_extensions.pymdownx.highlight]
[project.markdown_extensions.pymdownx.inlinehilite]
[project.markdown_extensions.pymdownx.superfences]
"""


def sections(index: Path) -> Iterator[tuple[str, list[tuple[str, Path]]]]:
    """Yields the headings of an index page with the titles and files of the pages that are listed below each."""
    for part in re.split(r"^## ", index.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        entries = [(match["title"], (index.parent / match["path"]).resolve()) for match in _ENTRY.finditer(part)]
        if entries:
            yield part.partition("\n")[0].strip(), entries


def navigation() -> list[object]:
    """Returns the site's navigation: the README, a tab for each section of the index, and one for the Chinese pages."""
    english, chinese = (ROOT / "docs" / "index.md", ROOT / "docs" / "zh" / "index.md")
    tabs: list[object] = [{"Home": ["README.md", {"All pages": _relative(english)}]}]
    for title, entries in sections(english):
        tabs.append({title: [{name: _relative(path)} for name, path in entries]})
    pages = [{name: _relative(path)} for _, entries in sections(chinese) for name, path in entries]
    return [*tabs, {"中文": [{"说明": "README.zh.md"}, {"文档": _relative(chinese)}, *pages]}]


def _relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def copy_pages() -> None:
    """Copies all pages of the repository, and the files and the readmes of folders that they link."""
    shutil.rmtree(PAGES, ignore_errors=True)
    waiting = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    seen: set[Path] = set()
    while waiting:
        page = waiting.pop()
        if page in seen:
            continue
        seen.add(page)
        target = PAGES / page.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(page, target)
        if page.suffix == ".md":
            links = (unquote(link).partition("#")[0] for link in _LINK.findall(page.read_text(encoding="utf-8")))
            found = ((page.parent / link).resolve() for link in links if link and not re.match(r"\w+:", link))
            waiting += [path for path in found if path.is_file() and path.is_relative_to(ROOT)]


def main() -> int:
    """Builds the site and returns the builder's exit status."""
    copy_pages()
    config = SITE / "zensical.toml"
    config.write_text(_CONFIG.format(nav=_toml(navigation())), encoding="utf-8")
    done = subprocess.run(["zensical", "build", "--strict", "--clean", "--config-file", str(config)])
    if done.returncode == 0:
        print(f"open {SITE / 'html' / 'index.html'}")
    return done.returncode


def _toml(value: object) -> str:
    """Returns a navigation as TOML: lists, tables with one key, and strings."""
    if isinstance(value, dict):
        return (
            "{ "
            + ", ".join(f"{json.dumps(key, ensure_ascii=False)} = {_toml(item)}" for key, item in value.items())
            + " }"
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    sys.exit(main())
