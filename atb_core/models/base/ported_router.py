# SPDX-License-Identifier: Apache-2.0
"""Attributes and methods of routers that only code written for ATB-Models uses."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from atb_core.extensions import refuse_uncalled

if TYPE_CHECKING:
    from atb_core.models.base.input_builder import InputBuilder

_UNCALLED = ("get_postprocessor", "get_reasoning_parser", "get_toolscallprocessor", "get_custom_chat_template")


class PortedRouter:
    """The part of ATB-Models' router class that has no counterpart here."""

    model_name_or_path: str
    tool_parser: ClassVar[str | None]

    #: No code of a checkpoint is run, and a checkpoint is a directory on this machine.
    trust_remote_code: ClassVar[bool] = False
    revision: ClassVar[str | None] = None
    #: Settings of ATB-Models' `config.json` for the engine; this project's are arguments of `ModelRunner`.
    llm_config: ClassVar[Any] = None
    model_version: ClassVar[str] = ""
    embedding_model_name: ClassVar[str] = ""
    custom_chat_template: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        """Refuses overridden methods that nothing here would call; subclasses call it."""
        for cls in type(self).__mro__:
            refuse_uncalled(cls, dict.fromkeys(_UNCALLED, "what docs/bring-your-model.md says of a router"))

    @property
    def tokenizer_path(self) -> str:
        """Returns the directory of the checkpoint."""
        return self.model_name_or_path

    @cached_property
    def input_builder(self) -> InputBuilder | None:
        """Returns what turns conversations into token ids, `None` for the checkpoint's chat template."""
        return self.get_input_builder()

    def get_input_builder(self) -> InputBuilder | None:
        """Returns what turns conversations into token ids, `None` for the checkpoint's chat template."""
        return None

    def get_tool_call_parser(self) -> str | None:
        """Returns the name of the parser for tool calls."""
        return self.tool_parser
