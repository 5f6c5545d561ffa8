# SPDX-License-Identifier: Apache-2.0
"""Routers, which connect a checkpoint with the classes of the family that serves it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from atb_core.errors import ConfigError, TokenizerError
from atb_core.models.base.config import BaseConfig
from atb_core.models.base.ported_router import PortedRouter
from atb_core.models.families import CONFIGS, MODELS, ROUTERS, families, model_type_of
from atb_core.plugin_errors import plugin_errors

if TYPE_CHECKING:
    from atb_core.checkpoint.base import Checkpoint, FormatRules
    from atb_core.models.base.flash_causal_lm_v3 import CausalLM

__all__ = ["BaseRouter"]

# The attributes of `runner.tokenizer.Tokenizer` that the runner uses.
_TOKENIZER = ("encode", "decode", "text_decoder", "apply_chat_template", "check_chat_template_kwargs", "eos_token_ids")


@dataclass
class BaseRouter(PortedRouter):
    """Creates configuration, model class and tokenizer of one checkpoint on first use; override `get_*` to change one.

    Args:
        model_name_or_path: a model directory or file.
        config_dict: the contents of `config.json`, or the same from a file of another format.
        checkpoint: the model's files; `None` for a router that is made of a configuration alone.
    """

    model_name_or_path: str = ""
    config_dict: dict[str, Any] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None

    #: The differences of the family's checkpoints in other formats from Hugging Face's, by the format's name.
    format_rules: ClassVar[Mapping[str, FormatRules]] = {}
    #: The variable by which the family's chat templates turn thinking on and off, if any.
    thinking_variable: ClassVar[str | None] = None
    #: The name of the parser for the family's tool calls, which a plugin offers, if any.
    tool_parser: ClassVar[str | None] = None

    @property
    def model_type(self) -> str:
        """Returns the key under which families are registered."""
        model_type = self.config_dict.get("model_type")
        if not isinstance(model_type, str) or not model_type:
            raise ConfigError(f"{self.model_name_or_path or 'the configuration'} names no model_type")
        return model_type

    @cached_property
    @plugin_errors()
    def config(self) -> BaseConfig:
        """Returns the checked configuration."""
        return self.get_config()

    @cached_property
    @plugin_errors()
    def model_cls(self) -> type[CausalLM]:
        """Returns the decorated model class."""
        return self.get_model_cls()

    @cached_property
    def tokenizer(self) -> Any:
        """Returns the family's own tokenizer, see `get_tokenizer`; TokenizerError if it lacks what the runner needs."""
        with plugin_errors():
            tokenizer = self.get_tokenizer()
        lacking = [name for name in _TOKENIZER if tokenizer is not None and not hasattr(tokenizer, name)]
        if lacking and not hasattr(tokenizer, "backend_tokenizer"):
            raise TokenizerError(
                f"{type(self).__name__}.get_tokenizer returns a {type(tokenizer).__name__} of the module "
                f"{type(tokenizer).__module__}, which has no {', '.join(lacking)}",
                hint="Do not override get_tokenizer to use the model's own files, or return an "
                "atb_core.runner.tokenizer.Tokenizer, for example Tokenizer.from_path(directory).",
            )
        return tokenizer

    @cached_property
    @plugin_errors()
    def generation_config(self) -> dict[str, Any]:
        """Returns the generation settings that the model's authors recommend, empty if there are none."""
        return self.get_generation_config()

    def get_config(self) -> BaseConfig:
        """Returns the configuration, of the class registered in the entry-point group `atb_core.configs`."""
        config_cls = families().load(CONFIGS, self.model_type, families().owner_of(type(self)))
        config: BaseConfig = config_cls.from_dict(self.config_dict)
        self.check_config(config)
        return config

    def check_config(self, config: BaseConfig) -> None:
        """Raises ConfigError for a configuration that the family cannot run."""
        config.validate()

    def get_model_cls(self) -> type[CausalLM]:
        """Returns the model class registered in the entry-point group `atb_core.models`."""
        owner = families().owner_of(type(self))
        return families().load(MODELS, self.model_type, owner)  # type: ignore[no-any-return]

    def get_tokenizer(self) -> Any:
        """Returns a tokenizer with the methods of `runner.tokenizer.Tokenizer`, or with atb-ops one of transformers.

        `None`, the default, has the checkpoint's files read.
        """
        return None

    def get_generation_config(self) -> dict[str, Any]:
        """Returns the checkpoint's generation settings."""
        return {} if self.checkpoint is None else self.checkpoint.generation_config()


@plugin_errors()
def router_of(checkpoint: Checkpoint) -> BaseRouter:
    """Returns the router of the family that serves a checkpoint, and sets that family's rules on the checkpoint.

    Imports only that family; reads no weights.

    Raises:
        ConfigError: there is no usable configuration.
        UnknownModelError: no installed family serves the model.
        PluginError: the family cannot be used.
    """
    model_type = model_type_of(checkpoint)
    router_cls: type[BaseRouter] = families().load(ROUTERS, model_type)
    checkpoint.set_rules(router_cls.format_rules)
    return router_cls(str(checkpoint), {**checkpoint.config(), "model_type": model_type}, checkpoint)
