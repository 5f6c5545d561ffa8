# SPDX-License-Identifier: Apache-2.0
"""LLM inference on static graphs that are recorded in Python and run by a C++ engine.

The public names are imported on first use: `import atb_core` itself imports neither torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from atb_core.extensions import connect

if TYPE_CHECKING:
    from atb_core.engine.kernels import get_include
    from atb_core.errors import (
        AtbError,
        BackendUnavailableError,
        ConfigError,
        ContextLengthError,
        EngineError,
        GraphError,
        ModelNotFoundError,
        PluginError,
        QueueFullError,
        RequestError,
        RequestTimeoutError,
        SettingsError,
        ShapeError,
        TokenizerError,
        UnknownModelError,
        VerifyError,
        WeightsError,
    )
    from atb_core.features import FeatureDecorator
    from atb_core.models.base.flash_causal_lm_v3 import FlashCausalLMV3, torch_to_mindie_graph
    from atb_core.plugins.api import API_VERSION
    from atb_core.runner.async_runner import AsyncRunner
    from atb_core.runner.model_runner import ModelRunner
    from atb_core.runner.outputs import CompletionOutput, EmbeddingOutput, RequestOutput, StreamChunk
    from atb_core.runner.sampling_params import SamplingParams

    __version__: str

__all__ = [
    "API_VERSION",
    "AsyncRunner",
    "AtbError",
    "BackendUnavailableError",
    "CompletionOutput",
    "ConfigError",
    "ContextLengthError",
    "EmbeddingOutput",
    "EngineError",
    "FeatureDecorator",
    "FlashCausalLMV3",
    "GraphError",
    "ModelNotFoundError",
    "ModelRunner",
    "PluginError",
    "QueueFullError",
    "RequestError",
    "RequestOutput",
    "RequestTimeoutError",
    "SamplingParams",
    "SettingsError",
    "ShapeError",
    "StreamChunk",
    "TokenizerError",
    "UnknownModelError",
    "VerifyError",
    "WeightsError",
    "__version__",
    "get_include",
    "torch_to_mindie_graph",
]

_HOME = {
    "AsyncRunner": "atb_core.runner.async_runner",
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
    # Names of a distribution of its own, which are not in `__all__`.
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
        return _version()
    if name == "API_VERSION":
        return import_module("atb_core.plugins.api").API_VERSION
    if name not in _HOME and name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOME.get(name, "atb_core.errors")
    if name in _HOME:
        # All of these import torch.
        from atb_core.plugins.torch_import import protect_torch_import

        protect_torch_import()
    try:
        return getattr(import_module(home), name)
    except ModuleNotFoundError as error:
        if home.partition(".")[0] != error.name:
            raise
        from atb_core.names import pip_install

        package = error.name.replace("_", "-")
        reason = f"{name} is in the distribution {package}, which is not installed"
        raise ImportError(f"{reason}: {pip_install(package)}", name=error.name) from error


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("atb-core")
    except PackageNotFoundError:
        # Running from a source tree that was never installed.
        return "0+unknown"
