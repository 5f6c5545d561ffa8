# SPDX-License-Identifier: Apache-2.0
"""The extension point for checkpoint formats; what all extension points of checkpoints share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from atb_core.checkpoint.base import Checkpoint
from atb_core.errors import AtbError, PluginError, WeightsError
from atb_core.extensions import Contribution, Extensions
from atb_core.names import BROUGHT
from atb_core.plugin_errors import plugin_errors

T = TypeVar("T")

_DAMAGED = "It may be damaged; if it is not, report this to the plugin's author."


@dataclass(frozen=True)
class CheckpointFormat:
    """A checkpoint format of a plugin. Directories with safetensors, the core's own format, take precedence.

    Attributes:
        name: for messages, and for the rules of families, such as `"GGUF"`.
        matches: returns true for a file, or a directory without safetensors, of this format; looks at no more than
            its name and its first bytes.
        open: returns the checkpoint at a path for which `matches` is true; raises `WeightsError` for a damaged one.
        suffixes: endings of the names of such files, in lower case with the dot. A file with one of them is found in
            a directory, and fetched from a hub by its address.
        files: returns the names of the files that make up the model which a file belongs to, first the one that
            stands for it; reads nothing.
    """

    name: str
    matches: Callable[[Path], bool]
    open: Callable[[Path], Checkpoint]
    suffixes: tuple[str, ...] = ()
    files: Callable[[Path], Sequence[Path]] = lambda path: (path,)

    def __str__(self) -> str:
        return f"the checkpoint format {self.name!r}"


def format_problem(item: CheckpointFormat) -> str | None:
    """Returns the fault of a contributed format, `None` if it has none."""
    if not isinstance(item.suffixes, tuple) or not all(
        isinstance(suffix, str) and suffix.startswith(".") and suffix == suffix.lower() for suffix in item.suffixes
    ):
        return f"the suffixes of the format {item.name!r} are {item.suffixes!r}, not a tuple such as ('.foo',)"
    return None


CHECKPOINT_FORMATS: Extensions[CheckpointFormat] = Extensions(
    "atb_checkpoint_formats", CheckpointFormat, format_problem, name="name"
)


def read_by(
    contribution: Contribution[Any], reference: object, kind: type[AtbError], result: type, read: Any, *args: object
) -> Any:
    """Returns what a plugin's function reads, of the class `result`.

    Args:
        contribution: the plugin's format, scheme or source.
        reference: what is read, for messages.
        kind: class of the error for whatever the function raises.
        result: class of what it has to return; PluginError for anything else.
        read: the function.
        args: its arguments.
    """
    name = f"{contribution.value} of {contribution.owner}"
    with plugin_errors(contribution.owner, f"{reference} cannot be read: {name}", kind, _DAMAGED):
        value = read(*args)
    if not isinstance(value, result):
        raise PluginError(f"{name} returned {value!r:.200} for {reference}, which is no {result.__name__}")
    return value


def claimant(point: Extensions[T], claims: Callable[[T], bool], subject: str) -> Contribution[T] | None:
    """Returns the contribution for which `claims` is true, `None` without one.

    One that raises is recorded and left out. Raises `PluginError` if several claim the `subject`.
    """
    claiming = set()
    for each in point.all():
        with point.left_out_if_failing(each.owner, f"{each.value}, asked about {subject}"):
            if claims(each.value):
                claiming.add(id(each.value))
    return point.only(lambda value: id(value) in claiming, subject)


def custom_checkpoint(path: Path) -> Checkpoint | None:
    """Returns the checkpoint at `path` if a plugin's format claims it, else `None`; `PluginError` if several do."""
    contribution = claimant(CHECKPOINT_FORMATS, lambda each: each.matches(path), f"a format for {path}")
    if contribution is None:
        return None
    return read_by(contribution, path, WeightsError, Checkpoint, contribution.value.open, path)  # type: ignore[no-any-return]


def file_suffixes() -> frozenset[str]:
    """Returns the suffixes of models that are single files, including those whose package is not installed."""
    return frozenset(BROUGHT[CHECKPOINT_FORMATS.hook]).union(
        *(each.value.suffixes for each in CHECKPOINT_FORMATS.all())
    )


def refuse_without_package(file: str) -> None:
    """Raises `WeightsError` for a file of a format whose package is known and not installed."""
    suffix = Path(file).suffix.lower()
    missing = CHECKPOINT_FORMATS.missing(suffix, f"{file} is read by the package", WeightsError)
    if missing and not any(suffix in each.value.suffixes for each in CHECKPOINT_FORMATS.all()):
        raise missing


def files_of_model(path: Path) -> Sequence[Path]:
    """Returns the files that make up the model which a file belongs to, by its name; first the one to open."""
    for each in CHECKPOINT_FORMATS.all():
        if path.suffix.lower() in each.value.suffixes:
            return read_by(each, path, WeightsError, Sequence, each.value.files, path)  # type: ignore[no-any-return]
    return (path,)
