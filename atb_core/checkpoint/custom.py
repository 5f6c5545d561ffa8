# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in formats that plugins bring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from atb_core.checkpoint.base import WeightLoader
from atb_core.checkpoint.directory import DirectoryCheckpoint
from atb_core.errors import AtbError, ConfigError, PluginError, WeightsError, error_text
from atb_core.extensions import Contribution, Extensions, Owner, blame
from atb_core.graph.dtype import DataType

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class WeightFormat:
    """A checkpoint format of a plugin. The core's own formats take precedence.

    Attributes:
        name: for messages, such as `"Foo archive"`.
        matches: returns true for a file, or a directory without safetensors, of this format; looks at no more than
            its name and its first bytes.
        open: opens a path for which `matches` is true; raises `WeightsError` for a damaged one.
        config: returns the configuration of such a path; `None`: a `config.json` beside the file, or in the directory.
    """

    name: str
    matches: Callable[[Path], bool]
    open: Callable[[Path], WeightLoader]
    config: Callable[[Path], dict[str, Any]] | None = None

    def __str__(self) -> str:
        return f"the weight format {self.name!r}"


def format_problem(item: object) -> str | None:
    """Returns the fault of a contributed format, `None` if it has none."""
    if not isinstance(item, WeightFormat):
        return f"{item!r} is no WeightFormat"
    if not isinstance(item.name, str) or not item.name:
        return f"{item!r} has no name"
    if not (callable(item.matches) and callable(item.open) and (item.config is None or callable(item.config))):
        return f"matches, open and config of the format {item.name!r} must be functions of a path"
    return None


CHECKPOINT_FORMATS: Extensions[WeightFormat] = Extensions(
    "atb_weight_formats", "a list of atb_core.plugins.WeightFormat", format_problem
)


class CustomCheckpoint(DirectoryCheckpoint):
    """A file or directory whose weights a plugin reads; its other files are those of a directory."""

    def __init__(self, path: Path, contribution: Contribution[WeightFormat]) -> None:
        super().__init__(path)
        self._format = contribution.value
        self._owner = contribution.owner
        self._name = f"{contribution.value} of {self._owner}"

    def read_config(self) -> dict[str, Any] | None:
        """Reads a directory's `config.json`, else asks the format, else reads the `config.json` beside the file."""
        in_directory = super().read_config() if self.path.is_dir() else None
        if in_directory is not None or self._format.config is None:
            return in_directory or super().read_config()
        config = call_plugin(self._name, self._owner, self._format.config, self.path, ConfigError)
        if not isinstance(config, dict):
            raise PluginError(f"{self._name} gives {config!r} as the configuration of {self}, which is no dict")
        return config

    def weights(self, dtype: DataType | None = None) -> WeightLoader:
        loader = call_plugin(self._name, self._owner, self._format.open, self.path, WeightsError)
        if not isinstance(loader, WeightLoader):
            raise PluginError(f"{self._name} opened {self} as {loader!r}, which is no WeightLoader")
        return loader


def call_plugin(name: str, owner: Owner, function: Callable[[R], T], reference: R, kind: type[AtbError]) -> T:
    """Returns `function(reference)`; what the plugin's code raises, but for an `AtbError`, is raised as `kind`."""
    try:
        return function(reference)
    except (AtbError, KeyboardInterrupt):
        raise
    except BaseException as error:
        blamed = blame(error, owner)
        if blamed is None:
            raise
        raise kind(
            f"{reference} cannot be read: {name} failed: {error_text(error)}{blamed[1]}",
            hint="It may be damaged; if it is not, report this to the plugin's author.",
        ) from error


def claimant(point: Extensions[T], claims: Callable[[T], bool], subject: str) -> Contribution[T] | None:
    """Returns the contribution for which `claims` is true, `None` without one.

    One that raises is recorded and left out. Raises `PluginError` if several claim the `subject`.
    """
    claiming = set()
    for each in point.all():
        try:
            if claims(each.value):
                claiming.add(id(each.value))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            point.failed(each.owner, f"{each.value}, asked about {subject}", error)
    return point.only(lambda value: id(value) in claiming, subject)


def custom_checkpoint(path: Path) -> CustomCheckpoint | None:
    """Returns the checkpoint at `path` if a plugin's format claims it, else `None`; `PluginError` if several do."""
    contribution = claimant(CHECKPOINT_FORMATS, lambda each: each.matches(path), f"a format for {path}")
    return None if contribution is None else CustomCheckpoint(path, contribution)


def format_names() -> str:
    """Returns the formats of plugins as the end of a list, such as `, Foo archive (atb-foo 1.0)`."""
    return "".join(f", {each.value.name} ({each.owner})" for each in CHECKPOINT_FORMATS.all())
