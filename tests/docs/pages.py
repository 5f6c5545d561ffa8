# SPDX-License-Identifier: Apache-2.0
"""Reads the Markdown pages of the repository: their code blocks, links and headings.

A code block may be preceded by an HTML comment that says how it is tested:

* `<!-- test: weights -->`: runs only in the weights lane;
* `<!-- test: file NAME -->`: is written to NAME beside the page's other files;
* `<!-- test: model TYPE FOLDER -->`: a tiny random model of that type, with tokenizer and template, is put there first;
* `<!-- test: skip REASON -->`: is not run;
* `<!-- test: run -->` before shell commands: those are run too (`atb`, `cd` and `pip install -e .` are known).

A ```text block after `<!-- prints -->` is what the Python block before it prints.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^```(\w*)\s*$")
_DIRECTIVE = re.compile(r"^<!--\s*(test: .*?|prints)\s*-->$")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, text, first line in the file, and the directive before it."""

    language: str
    text: str
    line: int
    directive: str


def pages() -> list[Path]:
    """Every page that is part of the documentation, plugins' pages included."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("plugins/*/*.md"),
             *ROOT.glob("examples/*/*.md"), *ROOT.glob("benchmarks/*.md"), *ROOT.glob("tests/*.md")]  # fmt: skip
    return sorted(found)


def with_examples() -> list[Path]:
    """The pages whose examples run one after the other.

    Not the Chinese ones, which are held to the code of the English ones, and not the README, see `test_clone.py`.
    """
    return [page for page in pages() if page.parent.name != "zh" and page.parent != ROOT]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found: list[Block] = []
    language, start, directive = "", 0, ""
    body: list[str] | None = None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = _FENCE.match(line)
        if body is not None:
            if fence and not fence[1]:
                found.append(Block(language, "\n".join(body) + "\n", start + 1, directive))
                body, directive = None, ""
            else:
                body.append(line)
        elif fence:
            language, start, body = fence[1], number, []
        elif match := _DIRECTIVE.match(line.strip()):
            directive = match[1].removeprefix("test: ")
        elif line.strip():
            directive = ""
    assert body is None, f"{page}: a code block is never closed"
    return found


def links(page: Path) -> list[str]:
    """Targets of the links outside code blocks."""
    prose, inside = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        if _FENCE.match(line):
            inside = not inside
        elif not inside:
            prose.append(line)
    return _LINK.findall("\n".join(prose))


def anchors(page: Path) -> set[str]:
    """The fragments that the page's headings can be linked by."""
    found = set()
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            title = line.lstrip("#").strip().lower()
            found.add(re.sub(r"[^\w\- ]", "", title).replace(" ", "-"))
    return found
