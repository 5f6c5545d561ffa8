# SPDX-License-Identifier: Apache-2.0
"""The router: configuration, tokenizer, input builder and the name of the parser for tool calls."""

# mypy: ignore-errors

from dataclasses import dataclass

from atb_core.models.base.model_utils import safe_get_tokenizer_from_pretrained
from atb_core.models.base.router import BaseRouter
from up_qwen2.config_qwen2 import Qwen2Config
from up_qwen2.input_builder_qwen2 import Qwen2InputBuilder

LARGEST = 2147483647


@dataclass
class Qwen2Router(BaseRouter):
    def __post_init__(self):
        super().__post_init__()
        self.transformers_version = self.config_dict["transformers_version"]
        self.prealloc_weight_mem_on_npu = True

    @property
    def is_old(self):
        return self.config_dict["model_type"] == "qwen2" and self.config_dict.get("intermediate_size") == 2816

    def get_config(self):
        self.config_dict.update({"transformers_version": self.transformers_version})
        config = Qwen2Config.from_dict(self.config_dict)
        self.check_qwen(config)
        return config

    def get_tokenizer(self):
        return safe_get_tokenizer_from_pretrained(
            self.tokenizer_path, padding_side="left", trust_remote_code=self.trust_remote_code
        )

    def check_qwen(self, config):
        super().check_config(config)
        for name, smallest in {"attention_dropout": 0, "max_window_layers": 1, "rope_theta": 1}.items():
            value = getattr(config, name, None)
            if value is not None and not smallest <= value <= LARGEST:
                raise ValueError(f"{name} must be between {smallest} and {LARGEST}")

    def get_input_builder(self):
        kwargs = {"is_old": self.is_old}
        if self.custom_chat_template:
            kwargs["chat_template"] = self.custom_chat_template
        if getattr(self.config, "max_position_embeddings", None):
            kwargs["max_length"] = self.config.max_position_embeddings
        return Qwen2InputBuilder(self.tokenizer, **kwargs)

    def get_tool_call_parser(self):
        return "qwen1_5_or_2" if self.is_old else "qwen2_5"
