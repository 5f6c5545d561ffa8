# SPDX-License-Identifier: Apache-2.0
"""`atb plugins new` writes a package that builds, installs and is found, and says what it cannot do."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import packages
import pytest

from atb_cli import main
from atb_core.names import pip_install
from atb_core.plugins.registry import registry
from atb_testing.scaffold.names import LIKES, ScaffoldError, derive_names
from atb_testing.scaffold.write import ANSWERS_FILE, TEMPLATE, stored_answers, write_package
from atb_testing.surface import private_imports

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

pytest.importorskip("copier")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def new(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `atb plugins new` with the given arguments in an empty folder: status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> tuple[int, str, str]:
        status = main(["plugins", "new", *args])
        return status, *capsys.readouterr()

    return run


def test_a_new_package_is_complete(new: Run, tmp_path: Path) -> None:
    status, _, err = new("atb-mistral", "--author", 'Zoë "Z" Müller <z@example.org>')
    assert (status, err) == (0, "")
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {
        f"atb-mistral/{name}"
        for name in (
            ".copier-answers.yml", ".github/workflows/ci.yml", ".gitignore", "CHANGELOG.md", "LICENSE", "README.md",
            "pyproject.toml", "src/atb_mistral/__init__.py", "src/atb_mistral/config.py",
            "src/atb_mistral/flash_causal_lm.py", "src/atb_mistral/modeling.py", "src/atb_mistral/py.typed",
            "src/atb_mistral/router.py", "tests/test_mistral.py",
        )
    }  # fmt: skip
    project = tomllib.loads((tmp_path / "atb-mistral/pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["authors"] == [{"name": 'Zoë "Z" Müller', "email": "z@example.org"}]
    assert project["entry-points"]["atb_core.routers"] == {"mistral": "atb_mistral.router:MistralRouter"}
    assert list(project["entry-points"]["atb_core.api"].values()) == ["atb_mistral"]


def test_the_next_three_commands_are_said(new: Run) -> None:
    status, out, _ = new("atb-mistral", "--directory", "my plugins/mistral")
    assert status == 0
    assert [line.strip() for line in out.splitlines()[-3:]] == [
        "cd 'my plugins/mistral'",
        "pip install -e '.[test]'",
        "pytest",
    ]


def test_what_is_there_is_not_written_over_unasked(new: Run, tmp_path: Path) -> None:
    (tmp_path / "atb-mistral").mkdir()
    assert new("atb-mistral")[0] == 0  # an empty folder holds nothing to lose
    model = tmp_path / "atb-mistral/src/atb_mistral/modeling.py"
    model.write_text("mine\n", encoding="utf-8")
    status, _, err = new("atb-mistral")
    assert status == 1
    assert "exists already" in err and "--force" in err
    assert model.read_text(encoding="utf-8") == "mine\n"
    assert new("atb-mistral", "--force")[0] == 0
    assert model.read_text(encoding="utf-8") != "mine\n"


def test_writing_again_starts_from_the_stored_answers(new: Run, tmp_path: Path) -> None:
    new("atb-mist", "--model-type", "mistral", "--like", "qwen3", "--author", "A. Author")
    first = stored_answers(tmp_path / "atb-mist")
    pyproject = (tmp_path / "atb-mist/pyproject.toml").read_text(encoding="utf-8")
    new("atb-mist", "--force")
    assert stored_answers(tmp_path / "atb-mist") == first
    assert (tmp_path / "atb-mist/pyproject.toml").read_text(encoding="utf-8") == pyproject
    new("atb-mist", "--force", "--like", "llama")
    assert stored_answers(tmp_path / "atb-mist") == {**first, "like": "llama"}


def test_damaged_answers_are_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / ANSWERS_FILE).write_text("[", encoding="utf-8")
    with pytest.raises(ScaffoldError, match="copier-answers"):
        write_package("atb-mistral", tmp_path, force=True)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("foo/bar", "no valid name"),
        ("../foo", "no valid name"),
        ("", "no valid name"),
        ("json", "belongs to Python itself"),
        ("class", "Python cannot import"),
        ("3d-model", "Python cannot import"),
        ("torch", "already installed"),
        ("atb-core", "already installed"),
    ],
)
def test_a_name_that_cannot_be_a_package_is_refused(new: Run, tmp_path: Path, name: str, reason: str) -> None:
    status, _, err = new(name)
    assert status == 1
    assert reason in err
    assert list(tmp_path.iterdir()) == []


def test_names_follow_from_one_another() -> None:
    names = derive_names("ATB_Qwen2.moe")
    assert (names.distribution, names.package) == ("atb-qwen2-moe", "atb_qwen2_moe")
    assert (names.model_type, names.prefix) == ("qwen2_moe", "Qwen2Moe")
    with pytest.raises(ScaffoldError, match="cannot be a model type"):
        derive_names("atb-foo", "a model")


@pytest.mark.parametrize("author", ["a <b", "<a@b>", "a\nb"])
def test_an_author_is_a_name_and_perhaps_an_address(new: Run, tmp_path: Path, author: str) -> None:
    assert new("atb-mistral", "--author", author)[0] == 1
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_likeness_lists_the_choices(new: Run) -> None:
    status, _, err = new("atb-mistral", "--like", "lama")
    assert status == 2
    assert all(like in err for like in LIKES)


def test_a_model_type_that_is_served_already_is_a_warning(new: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    served = {family.model_type: family.package for family in registry().families()}
    if not served:
        pytest.skip("no family is installed")
    model_type, package = next(iter(served.items()))
    status, _, err = new("atb-mine", "--model-type", model_type)
    assert status == 0
    assert model_type in err and package in err


def test_without_copier_the_command_says_what_to_install(new: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "copier":
            raise ImportError("no copier here")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    status, _, err = new("atb-mistral")
    assert status == 1
    assert pip_install("atb-testing[scaffold]") in err


def test_the_package_builds_installs_and_answers_as_hugging_face_does(new: Run, tmp_path: Path) -> None:
    # One test of the kit; all of it, for every likeness, is in the slow lane below.
    new("atb-mine", "--like", "llama", "--model-type", "llama")
    packages.install(tmp_path / "atb-mine", tmp_path / "site")
    result = packages.run_kit(tmp_path / "atb-mine", tmp_path, "-k", "entry_points or (logits and base)")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "passed" in result.stdout and "failed" not in result.stdout


@pytest.mark.slow
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("like", LIKES)
def test_what_is_written_passes_the_kit_untouched(new: Run, tmp_path: Path, like: str) -> None:
    new("atb-mine", "--like", like, "--model-type", like)
    packages.install(tmp_path / "atb-mine", tmp_path / "site")
    result = packages.run_kit(tmp_path / "atb-mine", tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("like", LIKES)
def test_what_is_written_is_python_that_uses_the_public_api(new: Run, tmp_path: Path, like: str) -> None:
    new("atb-mine", "--like", like)
    files = list((tmp_path / "atb-mine").rglob("*.py"))
    assert len(files) == 6
    for file in files:
        compile(file.read_text(encoding="utf-8"), str(file), "exec")
    assert private_imports(tmp_path / "atb-mine") == []


def test_the_template_is_installed_with_the_core() -> None:
    files = {path.name for path in TEMPLATE.rglob("*") if path.is_file()}
    assert {"copier.yml", "pyproject.toml.jinja", "ci.yml", "py.typed"} <= files
