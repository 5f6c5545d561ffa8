# SPDX-License-Identifier: Apache-2.0
"""Renders chats by the template that comes with a checkpoint, with bounded time and memory."""

from __future__ import annotations

import atexit
import re
from typing import Any

from atb_core.child import Worker, encode
from atb_core.errors import RequestError, TokenizerError

Message = dict[str, Any]
NO_CHAT = "Let it continue a text without a template: `atb run --raw`, or generate() with a string."

_TIME_LIMIT = 10.0
# Bytes that a rendering may allocate.
MEMORY_LIMIT = 512 << 20
TEMPLATE_LIMIT = 1 << 20


# One for all templates of this process: they are seldom needed at the same time.
_worker = Worker("atb_core.runner.template_worker:main")
atexit.register(_worker.end)


def end_template_process() -> None:
    """Ends the process that renders templates, after its current request; the next chat starts it again."""
    _worker.end()


class ChatTemplate:
    """A checkpoint's template.

    Args:
        source: Jinja source.
        special_tokens: Variables such as `bos_token` that the template may use.

    Raises:
        TokenizerError: The source is longer than a million characters.
    """

    def __init__(self, source: str, special_tokens: dict[str, str] | None = None) -> None:
        if len(source) > TEMPLATE_LIMIT:
            raise TokenizerError(
                f"The chat template has {len(source):,} characters; at most {TEMPLATE_LIMIT:,} are allowed"
            )
        self.source = source
        self._special_tokens = dict(special_tokens or {})

    def mentions(self, variable: str) -> bool:
        """Returns True if the name of a variable occurs in the template; one that does not cannot change anything."""
        return re.search(rf"\b{re.escape(variable)}\b", self.source) is not None

    def render(self, messages: list[Message], **variables: Any) -> str:
        """Returns the text of a conversation, as Hugging Face's `apply_chat_template` renders it.

        Raises:
            RequestError: The template refuses the conversation, or a value in it is not plain data.
            TokenizerError: The template is faulty, or takes more steps, time or memory than allowed.
        """
        # What templates may ask for without a check that it is there.
        usual = {"tools": None, "documents": None, "add_generation_prompt": True}
        values = {**self._special_tokens, **usual, **variables, "messages": messages}
        try:
            request = encode({"template": self.source, "variables": values})
        except (TypeError, ValueError, RecursionError) as error:
            raise RequestError(f"A chat must consist of strings, numbers, lists and dicts: {error}") from None
        answer = _worker.try_ask(request, _TIME_LIMIT, MEMORY_LIMIT)
        if "refused" in answer:
            raise RequestError(f"The model's chat template refuses this conversation: {answer['refused']}")
        if "error" in answer:
            hint = f"{NO_CHAT} Or give the model directory another chat_template.jinja."
            raise TokenizerError(f"The model's chat template fails: {answer['error']}", hint=hint)
        return str(answer["text"])
