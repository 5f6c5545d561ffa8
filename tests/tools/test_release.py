# SPDX-License-Identifier: Apache-2.0
"""A release tag names one package, its version and a section of its changelog; anything else is refused with why."""

from __future__ import annotations

from pathlib import Path

import pytest
import release

CORE = """
[build-system]
build-backend = "scikit_build_core.build"
[project]
name = "atb-core"
version = "2.0"
dependencies = ["numpy"]
[project.optional-dependencies]
dev = ["atb-core[lint]", "atb-foo>=0.3"]
"""
FOO = """
[build-system]
build-backend = "hatchling.build"
[project]
name = "atb-foo"
version = "0.3.1"
dependencies = ["atb-core[hf]>=2,<3", "atb-core-extras", "numpy"]
"""


def everything(requirement: str) -> bool:
    return True


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository of a core 2.0 that is not released yet and a family 0.3.1 that is."""
    for folder, project, heading in (
        (tmp_path, CORE, "## 2.0 (unreleased)"),
        (tmp_path / "plugins/atb-foo", FOO, "## 0.3.1\n\n## 0.3.0"),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pyproject.toml").write_text(project)
        (folder / "CHANGELOG.md").write_text(f"# Changelog\n\n{heading}\n")
    return tmp_path


def test_a_tag_leads_to_its_package(root: Path) -> None:
    assert release.check("atb-foo-v0.3.1", root, everything).folder == root / "plugins/atb-foo"


def test_a_package_whose_requirement_is_on_no_index_is_not_released(root: Path) -> None:
    asked = []
    with pytest.raises(release.ReleaseError, match="requires atb-core>=2,<3, which is on no package index"):
        release.check("atb-foo-v0.3.1", root, lambda requirement: bool(asked.append(requirement)))
    assert asked == ["atb-core>=2,<3"]  # the package's own requirements of others are not the repository's to check


def test_what_extras_name_and_is_on_no_index_is_listed(root: Path) -> None:
    core, foo = release.packages(root)
    assert release.unpublished_extras(core, root, lambda requirement: False) == ["atb-foo>=0.3"]
    assert release.unpublished_extras(core, root, everything) == []
    assert release.unpublished_extras(foo, root, lambda requirement: False) == []


@pytest.mark.parametrize(
    ("tag", "reason"),
    [
        ("v0.3.1", "is no release tag"),
        ("atb-foo-0.3.1", "is no release tag"),
        ("atb-bar-v0.3.1", "names no package of this repository; there are atb-core, atb-foo"),
        ("atb-foo-v0.3.0", "is not atb-foo's version in pyproject.toml, 0.3.1"),
        ("atb-core-v2.0", "no released section '## 2.0'"),
    ],
)
def test_what_does_not_fit_is_refused(root: Path, tag: str, reason: str) -> None:
    with pytest.raises(release.ReleaseError, match=reason):
        release.check(tag, root, everything)


def test_a_package_without_a_changelog_is_not_released(root: Path) -> None:
    (root / "plugins/atb-foo/CHANGELOG.md").unlink()
    with pytest.raises(release.ReleaseError, match=r"atb-foo has no CHANGELOG\.md"):
        release.check("atb-foo-v0.3.1", root, everything)


def test_every_package_of_this_repository_has_a_changelog_with_its_version() -> None:
    for package in release.packages():
        text = (package.folder / "CHANGELOG.md").read_text(encoding="utf-8")
        assert f"\n## {package.version}" in text, package.name


def test_the_check_tells_a_workflow_the_folder_and_if_it_has_to_compile(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    core, foo = release.packages(root)
    monkeypatch.setattr(release, "ROOT", root)
    monkeypatch.setattr(release, "check", lambda tag: {core.tag: core, foo.tag: foo}[tag])
    monkeypatch.setattr(release, "unpublished_extras", lambda package: [])
    assert release.main(["check", "atb-foo-v0.3.1"]) == 0
    assert capsys.readouterr().out == "folder=plugins/atb-foo\ncompiled=false\n"
    assert release.main(["check", "atb-core-v2.0"]) == 0
    assert capsys.readouterr().out == "folder=.\ncompiled=true\n"


def test_the_core_of_this_repository_is_released_when_its_changelog_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    core = release.packages()[0]
    if core.version not in release.changelog_versions(core.folder):
        assert release.main(["check", core.tag]) == 1
        assert "no released section" in capsys.readouterr().err


def test_the_tags_are_unique() -> None:
    tags = [package.tag for package in release.packages()]
    assert len(tags) == len(set(tags)) > 1
