# SPDX-License-Identifier: Apache-2.0
"""Turns conversations into token ids, as routers written for ATB-Models have it done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from atb_core.errors import RequestError
from atb_core.models import TruncationSide

__all__ = ["InputBuilder", "TruncationSide"]


class InputBuilder:
    """Renders conversations with a transformers tokenizer; a subclass overrides `_apply_chat_template`.

    Args:
        tokenizer: transformers tokenizer of the checkpoint.
        chat_template: replaces the tokenizer's own; empty for that one.
        system_role_name: role of instructions.
        user_role_name: role of the user's turns.
        max_length: longest context in tokens, for subclasses. Conversations are never shortened here.
    """

    def __init__(
        self,
        tokenizer: Any,
        chat_template: str = "",
        system_role_name: str = "system",
        user_role_name: str = "user",
        max_length: int = 2048,
    ) -> None:
        self.tokenizer = tokenizer
        self.system_role_name = system_role_name
        self.user_role_name = user_role_name
        self.tool_call_name = "tools_call"
        self.role_key = "role"
        self.truncation = "truncation"
        self.chat_template_kwargs = "chat_template_kwargs"
        self.max_length = max_length
        self.rank = 0
        if chat_template:
            tokenizer.chat_template = chat_template

    @staticmethod
    def generate_position_ids(input_ids: Sequence[int]) -> Iterable[int]:
        """Returns the positions of one sequence's tokens, counted from 0."""
        return range(len(input_ids))

    def make_context(
        self,
        rank: int,
        conversation: list[dict[str, Any]],
        add_generation_prompt: bool = True,
        adapt_to_max_length: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Returns the token ids of a conversation, as a list or under `input_ids` (transformers 5).

        Args:
            rank: rank of the process.
            conversation: messages with `role` and `content`. A last one with the role `tools_call` carries `tools`.
            add_generation_prompt: ends with the opening of the assistant's turn.
            adapt_to_max_length: must be false: a conversation that is too long is an error and is not shortened.
            kwargs: further arguments of `_apply_chat_template`; `chat_template_kwargs` are variables of the template.

        Raises:
            RequestError: `adapt_to_max_length` is true.
        """
        if adapt_to_max_length:
            raise RequestError(
                "adapt_to_max_length=True: conversations are not shortened",
                hint="Drop the oldest turns first.",
            )
        self.rank = rank
        if conversation and conversation[-1].get(self.role_key) == self.tool_call_name:
            conversation, kwargs["tools_msg"] = conversation[:-1], conversation[-1]
        return self._apply_chat_template(conversation, add_generation_prompt=add_generation_prompt, **kwargs)

    def _apply_chat_template(
        self,
        conversation: list[dict[str, Any]],
        tools_msg: dict[str, Any] | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        tools = (tools_msg or {}).get("tools")
        return self.tokenizer.apply_chat_template(
            conversation, tools=tools, tokenize=True, **kwargs, **(chat_template_kwargs or {})
        )
