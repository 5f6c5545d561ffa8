# SPDX-License-Identifier: Apache-2.0
"""Defines the class attributes by which an author describes a family to the kit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from atb_core.errors import PluginError
from atb_testing.capabilities import Capability
from atb_testing.cases import BASE, CAPABILITY_CASES, SHAPE_CASES


class FamilyDefinition:
    """Describes one model type: its name, its configurations, its claims."""

    #: The `model_type` of `config.json`: the name of the family's entry points and of Hugging Face's architecture.
    model_type: str = ""
    #: Fields of `config.json`, over those of a tiny decoder: 3 layers of 64, 4 heads, 2 of them for keys and values.
    config: ClassVar[Mapping[str, Any]] = {}
    #: Further configurations by name, over `config`; each gets the tests of weights and logits.
    cases: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    #: The claimed capabilities. Tests of others are skipped, and the summary lists them.
    capabilities: frozenset[Capability] = frozenset()
    #: False for a family whose model has no steps with `q_lens`; the kit then tests that they are refused.
    mixed_steps: ClassVar[bool] = True
    #: For `Capability.CHAT_TEMPLATE`: the template's source, or a directory with tokenizer_config.json.
    chat_template: ClassVar[str | None] = None
    tokenizer_directory: ClassVar[Path | str | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        unknown = [item for item in cls.capabilities if not isinstance(item, Capability)]
        if unknown:
            raise PluginError(
                f"{cls.__name__}.capabilities holds {unknown[0]!r}, which is no Capability",
                hint=f"There are {', '.join(f'Capability.{item.name}' for item in Capability)}.",
            )
        taken = sorted(set(cls.cases) & {BASE, *SHAPE_CASES, *(n for c in CAPABILITY_CASES.values() for n in c)})
        if taken:
            raise PluginError(f"{cls.__name__}.cases uses names of the kit's own cases: {', '.join(taken)}")
