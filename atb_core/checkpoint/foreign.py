# SPDX-License-Identifier: Apache-2.0
"""Checkpoint formats that plugins bring: which one a path is of, and how it is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from atb_core.checkpoint.base import WeightLoader
from atb_core.errors import AtbError, ConfigError, PluginError, WeightsError
from atb_core.extensions import Contribution, Extensions

__all__ = ["CHECKPOINT_FORMATS", "WeightFormat", "find_format", "foreign_config", "format_names", "open_foreign"]

T = TypeVar("T")


@dataclass(frozen=True)
class WeightFormat:
    """A checkpoint format that core does not know. Core's own formats are always tried first.

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


def find_format(path: Path) -> Contribution[WeightFormat] | None:
    """Returns the plugin's format that claims `path`, `None` if none does or if it is a path of core's own formats.

    A format that fails to look at it is recorded and left out.

    Raises:
        PluginError: several plugins claim it.
    """
    if path.suffix in (".gguf", ".safetensors") or not path.exists() or any(path.glob("*.safetensors")):
        return None
    claims = {id(each.value) for each in CHECKPOINT_FORMATS.all() if _claims(each, path)}
    return CHECKPOINT_FORMATS.only(lambda each: id(each) in claims, f"a format for {path}")


def open_foreign(chosen: Contribution[WeightFormat], path: Path) -> WeightLoader:
    """Opens the checkpoint at `path`.

    Raises:
        WeightsError: it cannot be opened.
        PluginError: the plugin gives no loader.
    """
    loader = _call(chosen, chosen.value.open, path, WeightsError)
    if not isinstance(loader, WeightLoader):
        raise PluginError(f"{_named(chosen)} opened {path} as {loader!r}, which is no WeightLoader")
    return loader


def foreign_config(chosen: Contribution[WeightFormat], path: Path) -> dict[str, Any] | None:
    """Returns the configuration that the format gives for `path`; `None` where a `config.json` holds it."""
    if chosen.value.config is None:
        return None
    config = _call(chosen, chosen.value.config, path, ConfigError)
    if not isinstance(config, dict):
        raise PluginError(f"{_named(chosen)} gives {config!r} as the configuration of {path}, which is no dict")
    return config


def format_names() -> str:
    """Returns the formats of plugins, for messages: `, Foo archive (atb-foo 1.0)`; empty if there is none."""
    return "".join(f", {each.value.name} ({each.owner})" for each in CHECKPOINT_FORMATS.all())


def _claims(contribution: Contribution[WeightFormat], path: Path) -> bool:
    try:
        return bool(contribution.value.matches(path))
    # A format that cannot even look at a file must not keep others from it.
    except Exception as error:
        what = f"the weight format {contribution.value.name!r}, asked about {path}"
        CHECKPOINT_FORMATS.failed(contribution.owner, what, error)
        return False


def _call(chosen: Contribution[WeightFormat], function: Callable[[Path], T], path: Path, kind: type[AtbError]) -> T:
    try:
        return function(path)
    except (AtbError, OSError, MemoryError):
        raise
    except Exception as error:
        raise kind(
            f"{path} cannot be read: {_named(chosen)} failed with {type(error).__name__}: {error}",
            hint="The file may be damaged; if it is not, tell the plugin's author.",
        ) from error


def _named(chosen: Contribution[WeightFormat]) -> str:
    return f"the weight format {chosen.value.name!r} of {chosen.owner}"
