# SPDX-License-Identifier: Apache-2.0
"""The Python examples of the documentation run, and print what the page says they print."""

from __future__ import annotations

import contextlib
import contextvars
import io
import linecache
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pages
import pytest
from tiny_models import write_model

from atb_cli import main
from atb_core.plugins.once import forget

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

_FILE = "file "


def _python_pages(*, weights: bool) -> list[object]:
    """Pages with an example for this lane, each as a test case. The lane with weights runs the others too."""
    cases = []
    for page in pages.with_examples():
        directives = [block.directive for block in pages.blocks(page) if block.language == "python"]
        runnable = [d for d in directives if not d.startswith(("skip", _FILE))]
        if runnable and (not weights or "weights" in runnable):
            name = page.relative_to(pages.ROOT).as_posix()
            cases.append(pytest.param(page, id=name))
    return cases


def _install(directory: Path) -> None:
    """Makes the package in `directory` known to this process and its children, as an editable install does."""
    project = tomllib.loads((directory / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    source = directory / "src"
    info = source / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8")
    groups = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(groups), encoding="utf-8")
    sys.path.insert(0, str(source))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(source), os.environ.get("PYTHONPATH"))))
    forget()


def _shell(block: pages.Block) -> None:
    """Runs the commands of a shell block that this project or Python itself has to answer for."""
    for line in block.text.splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["cd"]:
            os.chdir(words[1])
        elif words[:3] == ["pip", "install", "-e"]:
            _install(Path.cwd())
        elif words:
            assert words[0] == "atb", f"line {block.line}: {line!r} is no command that can be tested"
            assert main(words[1:]) == 0, f"line {block.line}: {line!r} failed"


def _run(page: Path, *, weights: bool) -> None:
    """Runs the blocks of a page in order in one namespace, as a reader would who types them in."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    printed: str | None = None
    for block in pages.blocks(page):
        if block.directive.startswith(_FILE):
            target = Path.cwd() / block.directive.removeprefix(_FILE)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text, encoding="utf-8")
            if target.name == "pyproject.toml":
                _install(Path.cwd())
        elif block.directive == "prints":
            assert printed is not None, f"{page}:{block.line}: nothing ran before this output"
            assert printed == block.text, f"{page}:{block.line} shows another output"
        elif block.directive == "run":
            _shell(block)
        elif block.language != "python" or block.directive.startswith("skip"):
            continue
        elif block.directive == "weights" and not weights:
            printed = None
        else:
            if block.directive.startswith("model "):
                _, model_type, folder = block.directive.split()
                write_model(Path(folder), model_type)
            name = f"{page}:{block.line}"
            linecache.cache[name] = (len(block.text), None, block.text.splitlines(keepends=True), name)
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(block.text, name, "exec"), namespace)
            printed = out.getvalue()


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty current directory; nothing that a page installs there is known afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
    monkeypatch.undo()
    forget()


@pytest.mark.parametrize("page", _python_pages(weights=False))
def test_the_examples_of_a_page_run(page: Path) -> None:
    # A page that is abandoned half-way must not leave its recording to the next.
    contextvars.copy_context().run(_run, page, weights=False)


@pytest.mark.weights
@pytest.mark.parametrize("page", _python_pages(weights=True))
def test_the_examples_of_a_page_run_with_a_real_model(page: Path) -> None:
    contextvars.copy_context().run(_run, page, weights=True)
