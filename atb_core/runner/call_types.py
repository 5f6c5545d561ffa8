# SPDX-License-Identifier: Apache-2.0
"""Types of the arguments of `ModelRunner.generate` and `ModelRunner.chat`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from atb_core.runner.prompts import Chat
from atb_core.runner.sampling_params import SamplingParams
from atb_core.runner.token_mask import TokenMaskFactory

Params = SamplingParams | Sequence[SamplingParams] | None
Chats = Chat | Sequence[Chat]
AdapterIds = str | Sequence[str | None] | None


class Extra(TypedDict, total=False):
    """Further arguments of `ModelRunner.generate` and `ModelRunner.chat`."""

    add_generation_prompt: bool
    tools: Sequence[dict[str, Any]] | None
    chat_template_kwargs: Mapping[str, Any] | None
    token_mask: TokenMaskFactory | None
    adapter_ids: AdapterIds
