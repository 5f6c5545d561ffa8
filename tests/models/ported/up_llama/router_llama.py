# SPDX-License-Identifier: Apache-2.0
"""The router, whose input builder is the base class."""

# mypy: ignore-errors

from dataclasses import dataclass

from atb_core.models.base.input_builder import InputBuilder
from atb_core.models.base.model_utils import safe_get_tokenizer_from_pretrained
from atb_core.models.base.router import BaseRouter
from up_llama.config_llama import LlamaConfig


@dataclass
class LlamaRouter(BaseRouter):
    def get_config(self):
        config = LlamaConfig.from_dict(self.config_dict)
        super().check_config(config)
        return config

    def get_tokenizer(self):
        use_fast = self.config_dict["num_hidden_layers"] not in [60]
        tokenizer = safe_get_tokenizer_from_pretrained(
            self.tokenizer_path,
            revision=self.revision,
            padding_side="left",
            truncation_side="left",
            trust_remote_code=False,
            use_fast=use_fast,
        )
        tokenizer.pad_token_id = 0
        return tokenizer

    def get_input_builder(self):
        kwargs = {"chat_template": self.custom_chat_template} if self.custom_chat_template else {}
        return InputBuilder(self.tokenizer, **kwargs)

    def get_tool_call_parser(self):
        return "llama"
