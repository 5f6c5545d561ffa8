# SPDX-License-Identifier: Apache-2.0
"""Runs the transformers tokenizer and the input builder that a router written for ATB-Models returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from atb_core.checkpoint.base import TokenizerParts
from atb_core.checkpoint.tokenizer_json import bounded
from atb_core.errors import RequestError
from atb_core.runner.tokenizer import Tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from atb_core.runner.chat_template import Message
    from atb_ops.input_builder import InputBuilder


_UNSUPPORTED = ("continue_final_message", "padding", "max_length", "return_tensors", "return_assistant_tokens_mask")


class PortedTokenizer(Tokenizer):
    """A transformers tokenizer with the methods that the runner uses.

    The parts of it that a checkpoint brings are run as those of other tokenizers are: unusual ones and the chat
    template in a process with limits, also where the input builder calls `apply_chat_template`.

    Args:
        tokenizer: Fast tokenizer of transformers.
        input_builder: Turns conversations into token ids; `None` for the tokenizer's chat template, which is then
            rendered as other templates are, in a process of its own with limits.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, input_builder: InputBuilder | None) -> None:
        template = tokenizer.chat_template
        super().__init__(
            TokenizerParts(
                backend=bounded(tokenizer.backend_tokenizer),
                eos_token_ids=frozenset(() if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)),
                special_tokens={n: t for n, t in tokenizer.special_tokens_map.items() if isinstance(t, str)},
                chat_templates={"default": template} if isinstance(template, str) else dict(template or {}),
            )
        )
        self._input_builder = input_builder
        if input_builder is not None:
            input_builder.tokenizer.apply_chat_template = self._apply_as_transformers

    def _apply_as_transformers(
        self,
        conversation: list[Message],
        *,
        tokenize: bool = True,
        return_dict: bool = True,
        chat_template: str | None = None,
        **variables: Any,
    ) -> Any:
        """Returns what the method `apply_chat_template` of a transformers tokenizer does."""
        if asked := [name for name in _UNSUPPORTED if variables.pop(name, None)]:
            raise RequestError(
                f"apply_chat_template is called with {', '.join(asked)}",
                hint="Leave it out of the input builder: prompts are neither shortened nor filled up here.",
            )
        variables.pop("truncation", None)  # without a length it changes nothing here: a long prompt is an error
        variables.setdefault("add_generation_prompt", False)
        template = self if chat_template is None else self.with_chat_template(chat_template)
        text = template.apply_chat_template(conversation, **variables)
        if not tokenize:
            return text
        ids = self.encode(text, add_special_tokens=False)
        return {"input_ids": ids, "attention_mask": [1] * len(ids)} if return_dict else ids

    @property
    def has_chat_template(self) -> bool:
        """True if chats can be rendered, by a template or an input builder."""
        return self._input_builder is not None or super().has_chat_template

    def encode_chat(self, messages: list[Message], **variables: Any) -> tuple[str | None, list[int]]:
        """Returns `None` and the token ids of a conversation; see `Tokenizer.encode_chat`."""
        if self._input_builder is None:
            return super().encode_chat(messages, **variables)
        conversation = [dict(message) for message in messages]
        add_generation_prompt = variables.pop("add_generation_prompt", True)
        if tools := variables.pop("tools", None):
            conversation.append({"role": self._input_builder.tool_call_name, "tools": tools})
        token_ids = self._input_builder.make_context(
            0, conversation, add_generation_prompt=add_generation_prompt, chat_template_kwargs=variables
        )
        if isinstance(token_ids, Mapping):  # what apply_chat_template returns from transformers 5 on
            token_ids = token_ids["input_ids"]
        return None, list(token_ids)

    def check_chat_template_kwargs(self, variables: Mapping[str, Any]) -> None:
        """Refuses variables that would change nothing, as far as that is known; see `Tokenizer`."""
        if self._input_builder is None or "messages" in variables:
            super().check_chat_template_kwargs(variables)


def ported(tokenizer: Any, input_builder: InputBuilder | None) -> Tokenizer | None:
    """Returns what a router's `get_tokenizer` and `get_input_builder` gave as a tokenizer of the runner.

    Raises:
        RequestError: There is an input builder, and no tokenizer of transformers.
    """
    if hasattr(tokenizer, "backend_tokenizer"):
        return PortedTokenizer(tokenizer, input_builder)
    if input_builder is not None:
        raise RequestError(
            f"{type(input_builder).__name__} needs a transformers tokenizer, and get_tokenizer returns none",
            hint="Return one from get_tokenizer, or drop get_input_builder to use the checkpoint's chat template.",
        )
    return tokenizer  # type: ignore[no-any-return]
