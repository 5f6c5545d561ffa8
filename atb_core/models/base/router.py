# SPDX-License-Identifier: Apache-2.0
"""The router: from a model reference and its `config.json` to a family's classes and tools."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from atb_core.errors import ConfigError
from atb_core.models.base.config import BaseConfig
from atb_core.models.families import families, model_type_of

if TYPE_CHECKING:
    from atb_core.checkpoint.base import Checkpoint, GgufRules
    from atb_core.models.base.flash_causal_lm_v3 import CausalLM

__all__ = ["BaseRouter"]


@dataclass
class BaseRouter:
    """One model on its way into a family. Everything is made when first asked for; override `get_*` to change it.

    Args:
        model_name_or_path: a model directory or a `.gguf` file.
        config_dict: the contents of `config.json`, or the same from a GGUF file's metadata.
        checkpoint: the model's files; `None` for a router that is made of a configuration alone.
    """

    model_name_or_path: str = ""
    config_dict: dict[str, Any] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None

    #: How the family's GGUF files differ from its Hugging Face checkpoints, `None`: in nothing.
    gguf: ClassVar[GgufRules | None] = None
    #: The variable by which the family's chat templates turn thinking on and off; `None`: they have no such switch.
    thinking_variable: ClassVar[str | None] = None
    #: The notation of the family's tool calls: the name of a parser that some plugin offers; `None`: it has none.
    tool_parser: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        """Does nothing; subclasses written for ATB-Models call it."""

    @property
    def model_type(self) -> str:
        """The key under which families are registered."""
        model_type = self.config_dict.get("model_type")
        if not isinstance(model_type, str) or not model_type:
            raise ConfigError(f"{self.model_name_or_path or 'the configuration'} names no model_type")
        return model_type

    @cached_property
    def config(self) -> BaseConfig:
        """The checked configuration."""
        return self.get_config()

    @cached_property
    def model_cls(self) -> type[CausalLM]:
        """The decorated model class."""
        return self.get_model_cls()

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer that comes with the model, or `None` if the family leaves the choice to the caller."""
        return self.get_tokenizer()

    @cached_property
    def generation_config(self) -> dict[str, Any]:
        """The generation settings that the model's authors recommend, empty if there are none."""
        return self.get_generation_config()

    def get_config(self) -> BaseConfig:
        """By default from the class registered in the entry-point group `atb_core.configs`."""
        config_cls = families().config_for(self.model_type, families().owner_of(type(self)))
        config: BaseConfig = config_cls.from_dict(self.config_dict)
        self.check_config(config)
        return config

    def check_config(self, config: BaseConfig) -> None:
        """Raises ConfigError for a configuration that the family cannot run."""
        config.validate()

    def get_model_cls(self) -> type[CausalLM]:
        """By default the class registered in the entry-point group `atb_core.models`."""
        return families().model_for(self.model_type, families().owner_of(type(self)))  # type: ignore[no-any-return]

    def get_tokenizer(self) -> Any:
        """Override to bring a tokenizer of the family's own; by default the runner reads the model's files."""
        return None

    def get_generation_config(self) -> dict[str, Any]:
        """Returns what the checkpoint recommends; override for a family that knows better."""
        return {} if self.checkpoint is None else self.checkpoint.generation_config()


def router_of(checkpoint: Checkpoint) -> BaseRouter:
    """Makes the router of the family that serves a checkpoint, and sets that family's rules on the checkpoint.

    Imports that family and no other; reads no weights.

    Raises:
        ConfigError: there is no usable configuration.
        UnknownModelError: no installed family serves the model.
        PluginError: the family cannot be used.
    """
    model_type = model_type_of(checkpoint)
    router_cls: type[BaseRouter] = families().router_for(model_type)
    checkpoint.set_rules(router_cls.gguf)
    return router_cls(str(checkpoint), {**checkpoint.config(), "model_type": model_type}, checkpoint)
