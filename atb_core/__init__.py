# SPDX-License-Identifier: Apache-2.0
"""LLM inference on static graphs that are recorded in Python and run by a C++ engine.

Public names but the errors are imported on first use: `import atb_core` itself imports neither torch nor transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atb_core import errors
from atb_core.distributions import of_distribution, version_of
from atb_core.errors import *
from atb_core.extensions import connect

if TYPE_CHECKING:
    from atb_core.engine.kernels import get_include
    from atb_core.features import FeatureDecorator
    from atb_core.models.base.flash_causal_lm_v3 import FlashCausalLMV3, torch_to_mindie_graph
    from atb_core.plugins.api import API_VERSION
    from atb_core.runner.model_runner import ModelRunner
    from atb_core.runner.outputs import CompletionOutput, EmbeddingOutput, RequestOutput, StreamChunk
    from atb_core.runner.sampling_params import SamplingParams

    __version__: str

__all__ = [
    "API_VERSION", "CompletionOutput", "EmbeddingOutput", "FeatureDecorator", "FlashCausalLMV3", "ModelRunner",
    "RequestOutput", "SamplingParams", "StreamChunk", "__version__", "get_include", "torch_to_mindie_graph",
]  # fmt: skip
__all__ += errors.__all__

_HOME = {
    "API_VERSION": "atb_core.plugins.api",
    "CompletionOutput": "atb_core.runner.outputs",
    "EmbeddingOutput": "atb_core.runner.outputs",
    "FeatureDecorator": "atb_core.features",
    "FlashCausalLMV3": "atb_core.models.base.flash_causal_lm_v3",
    "ModelRunner": "atb_core.runner.model_runner",
    "RequestOutput": "atb_core.runner.outputs",
    "SamplingParams": "atb_core.runner.sampling_params",
    "StreamChunk": "atb_core.runner.outputs",
    "get_include": "atb_core.engine.kernels",
    "torch_to_mindie_graph": "atb_core.models.base.flash_causal_lm_v3",
    # Of further distributions, and therefore not in `__all__`.
    "AsyncRunner": "atb_serve.async_runner",
    "ModelTorch": "atb_cpp_models.model_torch",
    "load_native_library": "atb_cpp_models.libraries",
}


# Lower layers use these objects of higher layers; each is imported on first use.
connect("engine builder", "atb_core.engine:build_engine")
connect("families", "atb_core.plugins.registry")
connect("network text", "atb_core.graph.printing:network_text")
connect("plugins", "atb_core.plugins.hooks")


def __getattr__(name: str) -> Any:
    if name == "__version__":
        # A source tree that was never installed has none.
        return version_of("atb-core") or "0+unknown"
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name != "API_VERSION":
        # All others may import torch.
        from atb_core.plugins.torch_import import protect_torch_import

        protect_torch_import()
    return of_distribution(_HOME[name], name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
