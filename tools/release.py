# SPDX-License-Identifier: Apache-2.0
"""Checks the release of one package: `python tools/release.py check atb-qwen2-v0.1.0`.

Every package of the repository is released separately. A release is a tag `<package>-v<version>`; the version is the
one in the package's pyproject.toml, and its CHANGELOG.md has a section for it. What a package requires of this
repository has to be on the package index before: anybody could register a name that is not there, and all who install
the package would run that code.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Callable
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


def on_index(requirement: str) -> bool:
    """Returns true if pip finds a release for `requirement` on the package index, without this machine's settings."""
    command = [sys.executable, "-m", "pip", "--isolated", "--quiet", "install", "--dry-run", "--no-deps"]
    done = subprocess.run([*command, "--ignore-installed", "--pre", requirement], capture_output=True, text=True)
    if done.returncode and "No matching distribution" not in done.stderr:
        raise ReleaseError(f"pip cannot ask the package index for {requirement}: {done.stderr.strip()[-300:]}")
    return done.returncode == 0


def check(tag: str, root: Path = ROOT, published: Callable[[str], bool] = on_index) -> Package:
    """Returns the package that `tag` releases.

    Args:
        tag: `<package>-v<version>`.
        root: the root of the repository.
        published: whether the package index has a release for a requirement.

    Raises:
        ReleaseError: the tag has another form, names no package or another version than pyproject.toml, the changelog
            has no section of that version, or the package requires another one of the repository in a version that is
            on no index.
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
    for requirement in ours(package.dependencies, root):
        if not published(requirement):
            raise ReleaseError(
                f"{package.name} requires {requirement}, which is on no package index: release it before"
            )
    return package


def ours(requirements: list[str], root: Path = ROOT) -> list[str]:
    """Returns the requirements that packages of the repository meet, without their extras."""
    names = {package.name for package in packages(root)}
    found = [re.fullmatch(r"([\w.-]+)(?:\[.*?\])?(.*)", line) for line in requirements]
    return [match[1] + match[2] for match in found if match and match[1] in names]


def unpublished_extras(package: Package, root: Path = ROOT, published: Callable[[str], bool] = on_index) -> list[str]:
    """Returns what the extras of `package` require of other packages of the repository and is on no index yet."""
    lines = [line for extra in package.extras for line in package.extra(extra)]
    wanted = {line for line in ours(lines, root) if not re.match(rf"{package.name}(?![\w.-])", line)}
    return sorted(line for line in wanted if not published(line))


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
            for requirement in unpublished_extras(package):
                print(f"warning: release {requirement} next: an extra of {package.name} names it", file=sys.stderr)
    except ReleaseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
