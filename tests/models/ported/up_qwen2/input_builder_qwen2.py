# SPDX-License-Identifier: Apache-2.0
"""The prompt of a chat: tools come in a last message of their own."""

# mypy: ignore-errors

from atb_core.models import TruncationSide
from atb_core.models.base.input_builder import InputBuilder


class Qwen2InputBuilder(InputBuilder):
    def __init__(self, tokenizer, is_old, **kwargs):
        self.is_old = is_old
        super().__init__(tokenizer, **kwargs)

    def _apply_chat_template(self, conversation, tools_msg=None, **kwargs):
        if not self.tokenizer.chat_template:
            raise RuntimeError("no chat template")
        template_kwargs = kwargs.pop(self.chat_template_kwargs)
        if template_kwargs.get(self.truncation, TruncationSide.RIGHT) == TruncationSide.RIGHT:
            kwargs["truncation"] = True
            kwargs["tokenize"] = True
            kwargs["max_length"] = template_kwargs.get("max_length")
        if tools_msg:
            kwargs["tools"] = tools_msg.get("tools")
        return self.tokenizer.apply_chat_template(conversation, **kwargs)
