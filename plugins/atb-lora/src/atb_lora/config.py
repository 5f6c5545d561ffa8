# SPDX-License-Identifier: Apache-2.0
"""The settings of an adapter, `adapter_config.json` as PEFT writes it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from atb_core.errors import ConfigError
from atb_core.files import read_json

CONFIG_FILE = "adapter_config.json"
_LARGEST = 1 << 20
_WITHOUT_EFFECT = frozenset((
    "auto_mapping", "base_model_name_or_path", "corda_config", "ensure_weight_tying", "eva_config", "inference_mode",
    "lora_dropout", "megatron_core", "peft_version", "qalora_group_size", "revision", "runtime_config",
))  # fmt: skip
_READ = frozenset((
    "alpha_pattern", "bias", "exclude_modules", "init_lora_weights", "layers_pattern", "layers_to_transform",
    "lora_alpha", "peft_type", "r", "rank_pattern", "target_modules", "task_type", "use_rslora",
))  # fmt: skip
# Ways to begin training that leave the weights of the base model as they are.
_INITS = (True, False, None, "gaussian", "eva", "orthogonal")
# A pattern is run on names of modules, which are short, so that few repetitions end soon.
_PATTERN = re.compile(r"[\w.\-^$*+|()\\\[\]?]{1,500}")
_REPEATED_GROUP = re.compile(r"[)\]][*+?{]|[*+?][*+?]")
_MAX_REPETITIONS = 3
_MAX_PATTERNS = 64
_LONGEST_NAME = 256


@dataclass(frozen=True)
class LoraConfig:
    """The settings that decide what an adapter computes; names are PEFT's.

    Attributes:
        r: rank of the matrices of modules without an entry in `rank_pattern`.
        lora_alpha: numerator of their scale.
        use_rslora: divides by the square root of the rank instead of the rank (arXiv:2312.03732).
        rank_pattern: ranks of modules by name or pattern.
        alpha_pattern: `lora_alpha` of modules by name or pattern.
        bias: the biases that the adapter replaces: "none", "all" or "lora_only".
        base_model_name_or_path: the model that it was trained on.
        target_modules: names of the modules, or a pattern of them; `None`: all that have matrices.
        exclude_modules: names, or a pattern, of modules that have none.
        layers_to_transform: numbers of the layers that have matrices; `None`: all.
        layers_pattern: names of the lists of layers; none: any.
    """

    r: int = 8
    lora_alpha: float = 8
    use_rslora: bool = False
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    bias: str = "none"
    base_model_name_or_path: str | None = None
    target_modules: tuple[str, ...] | str | None = None
    exclude_modules: tuple[str, ...] | str | None = None
    layers_to_transform: tuple[int, ...] | None = None
    layers_pattern: tuple[str, ...] = ()

    def rank(self, module: str) -> int:
        """Returns the rank of a module's matrices."""
        return int(_value(self._patterns[0], module, self.r))

    def scale(self, module: str) -> float:
        """Returns the factor of a module's product."""
        rank = self.rank(module)
        return _value(self._patterns[1], module, self.lora_alpha) / (math.sqrt(rank) if self.use_rslora else rank)

    def excluded_by(self, module: str) -> str | None:
        """Returns the setting by which PEFT gives a module no matrices, `None` if it may have them."""
        module = module[:_LONGEST_NAME]
        targets, excluded = self.target_modules, self.exclude_modules
        if targets is not None and not _fits(targets, module):
            return "target_modules"
        if excluded is not None and _fits(excluded, module):
            return "exclude_modules"
        if self.layers_to_transform is None or not isinstance(targets, tuple) or module in targets:
            return None
        names = "|".join(map(re.escape, self.layers_pattern)) or "[^.]*"
        layer = re.match(rf".*\.(?:{names})\.(\d+)\.", module)
        return None if layer and int(layer[1]) in self.layers_to_transform else "layers_to_transform"

    @cached_property
    def _patterns(self) -> tuple[Any, Any]:
        return tuple(_compiled(getattr(self, name), name) for name in ("rank_pattern", "alpha_pattern"))  # type: ignore[return-value]


def read_lora_config(directory: Path) -> LoraConfig:
    """Reads the settings in `directory`.

    Raises:
        ConfigError: there are none, or they ask for what is not supported; names it.
    """
    given = read_json(directory / CONFIG_FILE, ConfigError)
    if given is None:
        raise ConfigError(
            f"{directory} is no adapter: it has no {CONFIG_FILE}",
            hint="An adapter is a directory that PEFT's save_pretrained wrote.",
        )
    try:
        _check_fields(given)
        config = LoraConfig(
            r=_number(given, "r", 8, int),
            lora_alpha=_number(given, "lora_alpha", 8, float),
            use_rslora=given.get("use_rslora") or False,
            rank_pattern=_table(given, "rank_pattern", int),
            alpha_pattern=_table(given, "alpha_pattern", float),
            bias=given.get("bias") or "none",
            base_model_name_or_path=base_model(given),
            target_modules=_modules(given, "target_modules"),
            exclude_modules=_modules(given, "exclude_modules") or None,
            layers_to_transform=_layers(given) or None,
            layers_pattern=_words(given.get("layers_pattern")),
        )
        _ = config._patterns
    except ValueError as error:
        raise ConfigError(f"the adapter {directory} cannot be used: {error}", hint=_HINT) from None
    return config


_HINT = "LoRA of linear layers is supported; merge other adapters into the checkpoint with PEFT's merge_and_unload."


def base_model(given: Mapping[str, Any]) -> str | None:
    """Returns the name of the model that an adapter belongs to, as its settings have it."""
    name = given.get("base_model_name_or_path")
    return name[:500] if isinstance(name, str) and name else None


def _check_fields(given: Mapping[str, Any]) -> None:
    if given.get("peft_type") != "LORA":
        raise ValueError(f"its peft_type is {str(given.get('peft_type'))[:40]!r}, not 'LORA'")
    if given.get("task_type") not in (None, "CAUSAL_LM"):
        raise ValueError(f"its task_type is {str(given['task_type'])[:40]!r}, not 'CAUSAL_LM'")
    if given.get("bias") not in (None, "none", "all", "lora_only"):
        raise ValueError(f"bias is {str(given['bias'])[:40]!r}, not 'none', 'all' or 'lora_only'")
    if not isinstance(given.get("use_rslora"), (bool, type(None))):
        raise ValueError("use_rslora is neither true nor false")
    init = given.get("init_lora_weights")
    if not isinstance(init, (bool, str, type(None))) or init not in _INITS:
        raise ValueError(f"init_lora_weights is {str(init)[:40]!r}, with which training changes the base model, too")
    # What these are, and what later versions add, is named: an adapter must not work by half.
    for name, value in given.items():
        if name not in _WITHOUT_EFFECT and name not in _READ and value:
            raise ValueError(f"{name[:60]} is {str(value)[:60]!r}, which is not supported")


def _number(given: Mapping[str, Any], name: str, default: int, kind: type) -> Any:
    value = given.get(name, default)
    fits = type(value) is int or (kind is float and type(value) is float)
    if not fits or not 0 < value <= _LARGEST:
        raise ValueError(f"{name} is {str(value)[:40]}, not a positive number")
    return value


def _words(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else (value,) if isinstance(value, str) and value else ()


def _modules(given: Mapping[str, Any], name: str) -> tuple[str, ...] | str | None:
    """Returns names of modules, or a pattern; `None` for one that is not run."""
    value = given.get(name)
    if isinstance(value, list):
        return _words(value)
    if not isinstance(value, (str, type(None))):
        raise ValueError(f"{name} is neither a list nor a pattern")
    return value if value is not None and value != "all-linear" and _is_simple(value) else None


def _layers(given: Mapping[str, Any]) -> tuple[int, ...]:
    value = given.get("layers_to_transform")
    numbers = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(number) is int for number in numbers):
        raise ValueError(f"layers_to_transform is {str(value)[:40]}, neither a number nor a list of them")
    return tuple(numbers)


def _fits(modules: tuple[str, ...] | str, module: str) -> bool:
    if isinstance(modules, str):
        return re.fullmatch(modules, module) is not None
    return any(_is_named(module, name) for name in modules)


def _is_simple(pattern: str) -> bool:
    """Returns true for a pattern that ends soon on names."""
    repetitions = sum(map(pattern.count, "*+?"))
    if not _PATTERN.fullmatch(pattern) or _REPEATED_GROUP.search(pattern) or repetitions > _MAX_REPETITIONS:
        return False
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


def _table(given: Mapping[str, Any], name: str, kind: type) -> dict[str, Any]:
    table = given.get(name) or {}
    if not isinstance(table, dict):
        raise ValueError(f"{name} is no object")
    return {key: _number(table, key, 0, kind) for key in table if table[key] is not None}


def _compiled(table: Mapping[str, float], what: str) -> list[tuple[str | re.Pattern[str], float]]:
    """Returns names and patterns with their values; the first that fits is taken."""
    entries: list[tuple[str | re.Pattern[str], float]] = []
    for key, value in table.items():
        if re.fullmatch(r"[\w.\-]+", key):
            entries.append((key, value))
            continue
        if not _is_simple(key):
            raise ValueError(f"the pattern {key[:100]!r} of {what} is none, or not simple enough to be run")
        entries.append((re.compile(rf"(?:.*\.)?(?:{key})"), value))
    if sum(not isinstance(key, str) for key, _ in entries) > _MAX_PATTERNS:
        raise ValueError(f"{what} has more than {_MAX_PATTERNS} patterns")
    return entries


def _value(entries: list[tuple[str | re.Pattern[str], float]], module: str, default: float) -> float:
    for key, value in entries:
        if _is_named(module, key) if isinstance(key, str) else key.fullmatch(module):
            return value
    return default


def _is_named(module: str, name: str) -> bool:
    return module == name or module.endswith(f".{name}")
