# SPDX-License-Identifier: Apache-2.0
"""Checks the release of one package: `python tools/release.py check atb-qwen2-v0.1.0`.

Every package of the repository is released separately. A release is a tag `<package>-v<version>`; the version is the
one in the package's pyproject.toml, and its CHANGELOG.md has a section for it.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from repository import ROOT, Package, packages

_TAG = re.compile(r"(?P<package>[a-z0-9]+(?:-[a-z0-9]+)*)-v(?P<version>\d[\w.+!-]*)")


class ReleaseError(Exception):
    """Gives the reason why a package cannot be released, in one sentence."""


def changelog_versions(folder: Path) -> list[str]:
    """Returns the versions that have a section in a package's CHANGELOG.md, newest first, without unreleased ones."""
    path = folder / "CHANGELOG.md"
    if not path.is_file():
        raise ReleaseError(f"{folder.name} has no CHANGELOG.md")
    headings = re.findall(r"^## (\S+)(.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [version for version, rest in headings if "unreleased" not in rest.lower()]


def check(tag: str, root: Path = ROOT) -> Package:
    """Returns the package that `tag` releases.

    Raises:
        ReleaseError: the tag has another form, names no package or another version than pyproject.toml, or the
            changelog has no section of that version.
    """
    match = _TAG.fullmatch(tag)
    if match is None:
        raise ReleaseError(f"{tag!r} is no release tag; the form is <package>-v<version>, such as atb-qwen2-v0.1.0")
    by_name = {package.name: package for package in packages(root)}
    package = by_name.get(match["package"])
    if package is None:
        raise ReleaseError(f"{tag} names no package of this repository; there are {', '.join(by_name)}")
    if package.version != match["version"]:
        raise ReleaseError(f"{tag} is not {package.name}'s version in pyproject.toml, {package.version}")
    if package.version not in changelog_versions(package.folder):
        raise ReleaseError(f"{package.name}'s CHANGELOG.md has no released section '## {package.version}'")
    return package


def main(argv: list[str] | None = None) -> int:
    """Runs `check TAG`, which prints `folder=` and `compiled=` for a workflow's output, or `tags`."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="print the package that a tag releases").add_argument("tag")
    commands.add_parser("tags", help="print the tag of every package's current version")
    options = parser.parse_args(argv)
    try:
        if options.command == "tags":
            print("\n".join(package.tag for package in packages()))
        else:
            package = check(options.tag)
            print(f"folder={package.folder.relative_to(ROOT)}\ncompiled={str(package.compiled).lower()}")
    except ReleaseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
