# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in formats that plugins bring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from atb_core.checkpoint.base import WeightLoader
from atb_core.checkpoint.claims import claimant
from atb_core.checkpoint.directory import DirectoryCheckpoint
from atb_core.errors import AtbError, ConfigError, PluginError, WeightsError
from atb_core.extensions import Contribution, Extensions
from atb_core.graph.dtype import DataType

__all__ = ["CHECKPOINT_FORMATS", "CustomCheckpoint", "WeightFormat", "custom_checkpoint", "format_names"]

T = TypeVar("T")


@dataclass(frozen=True)
class WeightFormat:
    """A checkpoint format that a plugin brings. The core's own formats take precedence.

    Attributes:
        name: for messages: `"Foo archive"`.
        matches: returns true for a file, or a directory without safetensors, of this format; cheap, by suffix or magic.
        open: opens a path for which `matches` holds; WeightsError for a damaged one.
        config: returns the configuration of such a path; `None`: a `config.json` beside the file, or in the directory.
    """

    name: str
    matches: Callable[[Path], bool]
    open: Callable[[Path], WeightLoader]
    config: Callable[[Path], dict[str, Any]] | None = None


def format_problem(item: object) -> str | None:
    """Returns a sentence that names the fault of a contributed format, `None` if it has none."""
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
        self._name = f"the weight format {contribution.value.name!r} of {contribution.owner}"

    def read_config(self) -> dict[str, Any] | None:
        # A directory with a config.json needs no plugin to be understood.
        in_directory = super().read_config() if self.path.is_dir() else None
        if in_directory is not None or self._format.config is None:
            return in_directory or super().read_config()
        config = self._call(self._format.config, ConfigError)
        if not isinstance(config, dict):
            raise PluginError(f"{self._name} gives {config!r} as the configuration of {self}, which is no dict")
        return config

    def weights(self, dtype: DataType | None = None) -> WeightLoader:
        loader = self._call(self._format.open, WeightsError)
        if not isinstance(loader, WeightLoader):
            raise PluginError(f"{self._name} opened {self} as {loader!r}, which is no WeightLoader")
        return loader

    def _call(self, function: Callable[[Path], T], kind: type[AtbError]) -> T:
        try:
            return function(self.path)
        except (AtbError, OSError, MemoryError):
            raise
        except Exception as error:
            raise kind(
                f"{self} cannot be read: {self._name} failed with {type(error).__name__}: {error}",
                hint="The file may be damaged; if it is not, tell the plugin's author.",
            ) from error


def custom_checkpoint(path: Path) -> CustomCheckpoint | None:
    """Returns the checkpoint at `path` if the format of a plugin claims it, else `None`.

    Raises:
        PluginError: the formats of several plugins claim it.
    """
    contribution = claimant(
        CHECKPOINT_FORMATS,
        lambda each: each.matches(path),
        lambda each: f"the weight format {each.name!r}",
        f"a format for {path}",
    )
    return None if contribution is None else CustomCheckpoint(path, contribution)


def format_names() -> str:
    """Returns the formats of plugins, for messages: `, Foo archive (atb-foo 1.0)`; empty if there is none."""
    return "".join(f", {each.value.name} ({each.owner})" for each in CHECKPOINT_FORMATS.all())
