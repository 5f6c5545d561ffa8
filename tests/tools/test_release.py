# SPDX-License-Identifier: Apache-2.0
"""A release tag names one package, its version and a section of its changelog; anything else is refused with why."""

from __future__ import annotations

from pathlib import Path

import pytest
import release


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository of a core 2.0 that is not released yet and a family 0.3.1 that is."""
    for folder, name, version, heading in (
        (tmp_path, "atb-core", "2.0", "## 2.0 (unreleased)"),
        (tmp_path / "plugins/atb-foo", "atb-foo", "0.3.1", "## 0.3.1\n\n## 0.3.0"),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pyproject.toml").write_text(f'[project]\nname = "{name}"\nversion = "{version}"\n')
        (folder / "CHANGELOG.md").write_text(f"# Changelog\n\n{heading}\n")
    return tmp_path


def test_a_tag_leads_to_its_package(root: Path) -> None:
    assert release.check("atb-foo-v0.3.1", root).folder == root / "plugins/atb-foo"


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
        release.check(tag, root)


def test_a_package_without_a_changelog_is_not_released(root: Path) -> None:
    (root / "plugins/atb-foo/CHANGELOG.md").unlink()
    with pytest.raises(release.ReleaseError, match=r"atb-foo has no CHANGELOG\.md"):
        release.check("atb-foo-v0.3.1", root)


def test_every_package_of_this_repository_has_a_changelog_with_its_version() -> None:
    for package in release.packages():
        text = (package.folder / "CHANGELOG.md").read_text(encoding="utf-8")
        assert f"\n## {package.version}" in text, package.name


def test_the_check_tells_a_workflow_the_folder_and_if_it_has_to_compile(capsys: pytest.CaptureFixture[str]) -> None:
    core = release.packages()[0]
    changelog = release.changelog_versions(core.folder)
    status = release.main(["check", core.tag])
    if core.version in changelog:
        assert (status, capsys.readouterr().out) == (0, "folder=.\ncompiled=true\n")
    else:
        assert status == 1
        assert "no released section" in capsys.readouterr().err


def test_the_tags_are_unique() -> None:
    tags = [package.tag for package in release.packages()]
    assert len(tags) == len(set(tags)) > 1
