# SPDX-License-Identifier: Apache-2.0
"""Renders the template with copier."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from packaging.version import Version

from atb_core.names import pip_install
from atb_core.plugins.api import API_VERSION
from atb_testing.scaffold.names import LIKES, Names, ScaffoldError, check_importable, derive_names

TEMPLATE: Final = Path(__file__).parent / "template"
#: File in the package with the answers to the template, so that it can be applied again.
ANSWERS_FILE: Final = ".copier-answers.yml"
_AUTHOR = re.compile(r"(?P<author_name>[^<>]+?)\s*(?:<(?P<author_email>[^<>\s]+@[^<>\s]+)>)?")


def stored_answers(target: Path) -> dict[str, str]:
    """Returns the answers that the package in `target` was written with; empty if there are none.

    Raises:
        ScaffoldError: the file of answers cannot be read.
    """
    import yaml

    path = target / ANSWERS_FILE
    if not path.is_file():
        return {}
    try:
        answers = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ScaffoldError(f"{path} cannot be read: {error}", hint="Restore it or remove it.") from error
    if not isinstance(answers, dict):
        raise ScaffoldError(f"{path} holds no answers", hint="Restore it or remove it.")
    return {str(key): str(value) for key, value in answers.items()}


def write_package(
    name: str,
    target: Path,
    *,
    like: str | None = None,
    model_type: str | None = None,
    author: str | None = None,
    force: bool = False,
) -> Names:
    """Writes the package of a new family into `target`.

    Args:
        name: of the distribution, see `derive_names`.
        target: the directory.
        like: one of `LIKES`.
        model_type: see `derive_names`.
        author: `Name` or `Name <address>`.
        force: overwrite existing files; arguments that are `None` then come from the stored answers in `target`.

    Raises:
        ScaffoldError: copier is missing, a name is not valid or taken, or `target` is not empty.
    """
    copier = _import_copier()
    if target.exists() and (not target.is_dir() or any(target.iterdir())) and not force:
        raise ScaffoldError(
            f"{target} exists already and is not empty",
            hint="Choose another --directory, or overwrite it with --force.",
        )
    stored = stored_answers(target)
    names = derive_names(name, model_type or (stored.get("model_type") if _same(name, stored) else None))
    check_importable(names.package, target)
    like = like or stored.get("like") or next(iter(LIKES))
    if like not in LIKES:
        raise ScaffoldError(f"there is no template for models like {like!r}", hint=f"There are {', '.join(LIKES)}.")
    answers = {
        "distribution": names.distribution,
        "package": names.package,
        "model_type": names.model_type,
        "prefix": names.prefix,
        "like": like,
        "author": author if author is not None else stored.get("author", ""),
    }
    # A key with a dot would be a table of its own in pyproject.toml.
    key = names.model_type if "." not in names.model_type else json.dumps(names.model_type)
    test_name = re.sub(r"[^A-Za-z0-9]", "_", names.model_type)
    derived = {**_author(answers["author"]), **_core(), "key": key, "test_name": test_name}
    copier.run_copy(
        str(TEMPLATE), target, data={**answers, **derived}, defaults=True, overwrite=True, quiet=True, unsafe=False
    )
    return names


def _same(name: str, stored: dict[str, str]) -> bool:
    return stored.get("distribution") == derive_names(name, "any").distribution


def _import_copier() -> Any:
    try:
        import copier
    except ImportError as error:
        raise ScaffoldError(
            f"copier, which writes a new package, cannot be imported: {error}",
            hint=f"{pip_install('atb-testing[scaffold]')}.",
        ) from error
    return copier


def _author(author: str) -> dict[str, str]:
    """Returns name and address of `Name <address>`; both may be empty."""
    if not author:
        return {"author_name": "", "author_email": ""}
    match = _AUTHOR.fullmatch(author.strip())
    if match is None or not author.isprintable():
        raise ScaffoldError(f"{author!r} is no author", hint="Write it as 'Name' or 'Name <address@example.org>'.")
    return match.groupdict("")


def _core() -> dict[str, str]:
    """Returns the range of versions of the core to depend on, and its API version."""
    major, minor = Version(version("atb-core")).release[:2]
    following = f"0.{minor + 1}" if major == 0 else str(major + 1)
    return {"core_range": f">={major}.{minor},<{following}", "api_version": str(API_VERSION)}
