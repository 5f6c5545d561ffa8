# SPDX-License-Identifier: Apache-2.0
"""Generation from prompts: scheduling, paged cache, sampling, tokenizers and the `ModelRunner`.

The names here are imported on first use; importing this package imports neither torch nor a tokenizer.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atb_core.runner.model_runner import ModelRunner
    from atb_core.runner.outputs import CompletionOutput, Logprob, RequestMetrics, RequestOutput, StreamChunk
    from atb_core.runner.prompts import ChatMessage, Prompt, TextPrompt, TokensPrompt
    from atb_core.runner.sampling_params import SamplingParams

__all__ = [
    "ChatMessage",
    "CompletionOutput",
    "Logprob",
    "ModelRunner",
    "Prompt",
    "RequestMetrics",
    "RequestOutput",
    "SamplingParams",
    "StreamChunk",
    "TextPrompt",
    "TokensPrompt",
]

_HOME = {
    "ChatMessage": "prompts",
    "CompletionOutput": "outputs",
    "Logprob": "outputs",
    "ModelRunner": "model_runner",
    "Prompt": "prompts",
    "RequestMetrics": "outputs",
    "RequestOutput": "outputs",
    "SamplingParams": "sampling_params",
    "StreamChunk": "outputs",
    "TextPrompt": "prompts",
    "TokensPrompt": "prompts",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
