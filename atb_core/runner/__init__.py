# SPDX-License-Identifier: Apache-2.0
"""Generation from prompts: scheduling, paged cache, sampling, tokenizers and the `ModelRunner`.

The names here are imported on first use; importing this package imports neither torch nor a tokenizer.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atb_core.runner.async_runner import AsyncRunner
    from atb_core.runner.model_runner import ModelRunner
    from atb_core.runner.outputs import (
        CompletionOutput,
        EmbeddingOutput,
        Logprob,
        RequestMetrics,
        RequestOutput,
        StreamChunk,
    )
    from atb_core.runner.prompts import ChatMessage, Prompt, TextPrompt, TokensPrompt
    from atb_core.runner.sampling_params import SamplingParams
    from atb_core.runner.token_mask import TokenMask

__all__ = [
    "AsyncRunner",
    "ChatMessage",
    "CompletionOutput",
    "EmbeddingOutput",
    "Logprob",
    "ModelRunner",
    "Prompt",
    "RequestMetrics",
    "RequestOutput",
    "SamplingParams",
    "StreamChunk",
    "TextPrompt",
    "TokenMask",
    "TokensPrompt",
]

# In the order of search: only the last two import torch.
_MODULES = ("outputs", "sampling_params", "prompts", "token_mask", "async_runner", "model_runner")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            if (value := getattr(import_module(f"{__name__}.{module}"), name, None)) is not None:
                return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
