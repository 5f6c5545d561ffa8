# SPDX-License-Identifier: Apache-2.0
"""From prompts to text: scheduling, paged cache, sampling, tokenizers and the :class:`ModelRunner`.

The names here are imported on first use; importing this package imports neither torch nor a tokenizer.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atb_core.runner.model_runner import ModelRunner
    from atb_core.runner.outputs import RequestMetrics, RequestOutput, StreamChunk, TokenLogprobs
    from atb_core.runner.sampling_params import SamplingParams

__all__ = ["ModelRunner", "RequestMetrics", "RequestOutput", "SamplingParams", "StreamChunk", "TokenLogprobs"]

_HOME = {
    "ModelRunner": "model_runner",
    "RequestMetrics": "outputs",
    "RequestOutput": "outputs",
    "SamplingParams": "sampling_params",
    "StreamChunk": "outputs",
    "TokenLogprobs": "outputs",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
