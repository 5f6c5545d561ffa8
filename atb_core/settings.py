# SPDX-License-Identifier: Apache-2.0
"""Settings of the user and the process: a strict TOML file, overridden by environment variables.

The file is `$ATB_CONFIG`, else `$XDG_CONFIG_HOME/atb/config.toml`, else `~/.config/atb/config.toml`. Arguments and
command line options override both; docs/settings.md lists keys and variables. An empty variable counts as not set.
Unknown keys in the file are errors, so that a misspelt setting is not ignored.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from atb_core.errors import SettingsError
from atb_core.files import read_text, user_folder, user_path
from atb_core.names import GRAPHS, normalized_name

_MAX_BYTES = 1 << 20
# Variables that decide about the settings.
_VARIABLES = (
    "ATB_PLUGIN_TIMEOUT",
    "ATB_PLUGINS",
    "ATB_NO_PLUGINS",
    "ATB_STRICT",
    "ATB_PLUGINS_PREFER",
    "ATB_CACHE_PACKED",
)
#: The name under which the default model can be given where several arguments leave it open.
DEFAULT_MODEL: Final = "default"
_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")


@dataclass(frozen=True)
class PluginSettings:
    """Settings that select plugins. Names of distributions are normalized (`atb-foo`).

    Attributes:
        only: packages that may be used; `None` allows all.
        disabled: packages that must not be used, with the setting that disables each; the key `all` disables every one.
        strict: makes the failure of a plugin an error.
        import_seconds: seconds after which an import of one entry point is warned of, and `atb plugins doctor` ends it.
        prefer: package that serves a model type, by model type.
        only_source: setting that `only` comes from, for messages.
        prefer_sources: setting that each preference comes from, for messages.
    """

    only: frozenset[str] | None = None
    disabled: Mapping[str, str] = field(default_factory=dict)
    strict: bool = False
    import_seconds: float = 60.0
    prefer: Mapping[str, str] = field(default_factory=dict)
    only_source: str = ""
    prefer_sources: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """All settings.

    Attributes:
        path: path of the settings file, which need not exist.
        models: reference of each alias, and of `default` if there is one.
        plugins: the tables `[plugins]` and `[plugins.prefer]`.
        graph: what builds a model's graph: `python` or `cpp`.
        cache_packed: true, or a directory, if packed weights are kept.
    """

    path: Path
    models: Mapping[str, str]
    plugins: PluginSettings
    graph: str
    cache_packed: bool | str


def settings() -> Settings:
    """Returns the settings of this process, from the present environment and file; a file that changed is read again.

    Raises:
        SettingsError: the file or a variable is invalid; the message names the file and the key.
    """
    environ = {name: value for name in _VARIABLES if (value := os.environ.get(name))}
    path = settings_path()
    try:
        status = os.stat(path)
    except OSError:
        if os.environ.get("ATB_CONFIG"):
            hint = "Correct or unset ATB_CONFIG."
            raise SettingsError(f"ATB_CONFIG names {path}, which is not a file", hint=hint) from None
        return _settings(path, 0, 0, tuple(environ.items()))
    return _settings(path, status.st_mtime_ns, status.st_size, tuple(environ.items()))


def model_reference(name: str) -> str:
    """Returns the model that the settings call `name`, an alias or `default`; `name` itself if they do not."""
    return settings().models.get(name, name)


def settings_path(environ: Mapping[str, str] | None = None) -> Path:
    """Returns the path of the settings file, which must exist only if `ATB_CONFIG` names it."""
    environ = os.environ if environ is None else environ
    if own := environ.get("ATB_CONFIG"):
        return user_path(own, SettingsError)
    return user_folder(environ, "XDG_CONFIG_HOME", ".config") / "config.toml"


def load_settings(path: Path, environ: Mapping[str, str]) -> Settings:
    """Reads the settings from a file, which may be missing, and from environment variables that override it.

    Raises:
        SettingsError: the file or a variable is invalid; the message names the file and the key.
    """
    root = _Table(_read_toml(path), path)
    models = _models(root.table("models"))
    plugins = _plugins(root.table("plugins"), environ)
    engine = root.table("engine")
    graph = engine.get("graph", " or ".join(map(repr, GRAPHS)), GRAPHS.__contains__, GRAPHS[0])
    cache_packed = engine.get(
        "cache_packed", "true, false or a directory", lambda it: _is_flag(it) or _is_name(it), False
    )
    if own := environ.get("ATB_CACHE_PACKED"):
        word = own.lower()
        cache_packed = own if word not in (*_TRUE, *_FALSE) else word in _TRUE
    engine.done()
    root.done()
    return Settings(path, models, plugins, graph, cache_packed)


@functools.lru_cache(maxsize=8)
def _settings(path: Path, _changed: int, _size: int, environ: tuple[tuple[str, str], ...]) -> Settings:
    return load_settings(path, dict(environ))


def _read_toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    text = read_text(path, _MAX_BYTES, SettingsError)
    try:
        values: dict[str, Any] = tomllib.loads(text or "")
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"the settings file {path} is not valid TOML: {error}") from error
    return values


class _Table:
    """Table of the settings file that checks each value when it is read and reports the keys that were not read."""

    def __init__(self, values: dict[str, Any], path: Path, name: str = "") -> None:
        self._values, self._path, self._name = values, path, name
        self._keys: list[str] = []

    def source(self, key: str) -> str:
        """Returns the name of a setting for messages, e.g. `plugins.only in /home/me/.config/atb/config.toml`."""
        return f"{self._name}.{key} in {self._path}" if self._name else f"{key} in {self._path}"

    def table(self, key: str) -> _Table:
        """Returns the table under `key`, empty if it is missing."""
        values = self.get(key, "a table", lambda value: isinstance(value, dict), {})
        return _Table(values, self._path, f"{self._name}.{key}" if self._name else key)

    def get(self, key: str, words: str, fits: Callable[[Any], bool], default: Any = None) -> Any:
        """Returns the value of `key`, `default` if it is missing.

        Raises:
            SettingsError: `fits` is false for the value; the message says that it must be `words`.
        """
        self._keys.append(key)
        value = self._values.get(key, default)
        if key in self._values and not fits(value):
            name = f"{self._name}.{key}" if self._name else key
            raise SettingsError(f"the settings file {self._path} sets {name} to {value!r}; it must be {words}")
        return value

    def mapping(self) -> dict[str, str]:
        """Returns all keys of this table with their values, which must be non-empty strings."""
        return {key: self.get(key, "a name", _is_name) for key in self._values}

    def done(self) -> None:
        """Raises SettingsError for keys that were not read."""
        unknown = sorted(set(self._values) - set(self._keys))
        if unknown:
            where = f"[{self._name}]" if self._name else "the top level"
            raise SettingsError(
                f"the settings file {self._path} has an unknown key {unknown[0]!r} in {where}",
                hint=f"Known there: {', '.join(self._keys)}.",
            )


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_name, value))


def _models(table: _Table) -> dict[str, str]:
    default = table.get("default", "a name", _is_name)
    aliases = table.table("aliases")
    names = aliases.mapping()
    table.done()
    for name, reference in names.items():
        if name == DEFAULT_MODEL or reference in names:
            fault = "is the name of models.default" if name == DEFAULT_MODEL else f"leads to the alias {reference!r}"
            raise SettingsError(f"{aliases.source(name)} {fault}", hint="Give another name, or the model itself.")
    return names if default is None else {**names, DEFAULT_MODEL: names.get(default, default)}


def _plugins(table: _Table, environ: Mapping[str, str]) -> PluginSettings:
    only, disabled = (table.get(key, "a list of names", _are_names) for key in ("only", "disabled"))
    strict = table.get("strict", "true or false", _is_flag, False)
    preferences = table.table("prefer")
    prefer = {model_type: (name, preferences.source(model_type)) for model_type, name in preferences.mapping().items()}
    table.done()
    only_source = table.source("only")
    if own := _split(environ.get("ATB_PLUGINS", "")):
        only, only_source = own, "ATB_PLUGINS"
    # The variable adds to the file: disabling one more plugin must not enable another.
    sources = dict.fromkeys(disabled or (), table.source("disabled"))
    sources |= dict.fromkeys(_split(environ.get("ATB_NO_PLUGINS", "")), "ATB_NO_PLUGINS")
    for model_type, name in map(_pair, _split(environ.get("ATB_PLUGINS_PREFER", ""))):
        prefer[model_type] = name, "ATB_PLUGINS_PREFER"
    return PluginSettings(
        only=None if only is None else frozenset(map(normalized_name, only)),
        disabled={normalized_name(name): source for name, source in sources.items()},
        strict=_switch("ATB_STRICT", environ.get("ATB_STRICT", ""), strict),
        import_seconds=_seconds("ATB_PLUGIN_TIMEOUT", environ.get("ATB_PLUGIN_TIMEOUT", "")),
        prefer={model_type: normalized_name(name) for model_type, (name, _) in prefer.items()},
        only_source=only_source,
        prefer_sources={model_type: source for model_type, (_, source) in prefer.items()},
    )


def _split(text: str) -> list[str]:
    return [name for name in (part.strip() for part in text.split(",")) if name]


def _pair(text: str) -> tuple[str, str]:
    model_type, _, name = (part.strip() for part in text.partition("="))
    if not model_type or not name:
        raise SettingsError(
            f"ATB_PLUGINS_PREFER has {text!r}, which is not of the form MODEL_TYPE=PACKAGE",
            hint="For example ATB_PLUGINS_PREFER=qwen2=atb-foo,llama=atb-bar.",
        )
    return model_type, name


def _switch(name: str, text: str, default: bool) -> bool:
    value = text.strip().lower()
    if value and value not in _TRUE + _FALSE:
        raise SettingsError(f"{name}={text!r} is neither on nor off", hint=f"Set it to 1 or 0, or unset {name}.")
    return value in _TRUE if value else default


def _seconds(name: str, text: str) -> float:
    try:
        value = float(text) if text else PluginSettings.import_seconds
    except ValueError:
        value = 0.0
    if not 0 < value < threading.TIMEOUT_MAX:
        raise SettingsError(f"{name}={text!r} is not a positive number of seconds", hint=f"Correct or unset {name}.")
    return value
