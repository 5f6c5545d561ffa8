# SPDX-License-Identifier: Apache-2.0
"""Lists the modules that plugins and users may import.

The public names of a module are those of its `__all__`; `docs/api.md` describes them. They keep their meaning within an
API version. Everything else in `atb_core` may change with any release.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import import_module
from typing import Final

__all__ = ["API_VERSION", "PUBLIC_MODULES", "SUPPORTED_API_VERSIONS", "public_names"]

#: The version of the plugin API that this core offers.
API_VERSION = 1
#: The versions that plugins may have been written for: this one and the one before.
SUPPORTED_API_VERSIONS = frozenset({API_VERSION})
#: The public modules by what they are for. Further paths lead to names that stand in other public modules.
PUBLIC_MODULES: Final[Mapping[str, tuple[str, ...]]] = {
    "Run models": ("atb_core", "atb_core.runner.tokenizer", "atb_core.runner.token_mask"),
    "Record graphs": (
        "atb_core.graph", "atb_core.graph.ops", "atb_core.graph.arrays", "atb_core.nn", "atb_core.nn.functional",
        "atb_core.nn.modules", "atb_core.nn.distributed", "atb_core.nn.distributed.mapping", "atb_core.nn.network",
    ),
    "Write a model family": (
        "atb_core.models.base.router", "atb_core.models.base.config", "atb_core.models.base.moe_config",
        "atb_core.models.base.window_config", "atb_core.models.base.mindie_llm_config",
        "atb_core.models.base.modeling_python", "atb_core.models.base.decoder_causal_lm", "atb_core.layers",
        "atb_core.layers.attention.attention", "atb_core.layers.attention.kv_cache_spec",
        "atb_core.layers.attention.metadata", "atb_core.layers.embedding.word_embedding", "atb_core.layers.linear",
        "atb_core.layers.mlp.mlp", "atb_core.layers.moe.fused_experts", "atb_core.layers.moe.moe",
        "atb_core.layers.norm.normalization", "atb_core.checkpoint",
    ),
    "Write a feature": ("atb_core.features.adapters", "atb_core.features.step", "atb_core.layers.linear.adapters"),
    "Write hooks": (
        "atb_core.plugins", "atb_core.models.graph_builders", "atb_core.graph.passes", "atb_core.graph.quantized",
        "atb_core.engine", "atb_core.engine.base", "atb_core.engine.kernels", "atb_core.checkpoint.files",
        "atb_core.checkpoint.safetensors", "atb_core.checkpoint.sources.base",
    ),
    "Further import paths": (
        "atb_core.errors", "atb_core.layers.linear.linear", "atb_core.models.base.feature_decorator.v3.base_decorator",
        "atb_core.models.base.feature_decorator.v3.multilora_decorator",
        "atb_core.models.base.feature_decorator.v3.singlelora_decorator", "atb_core.models.base.flash_causal_lm_v3",
        "atb_core.nn.distributed.distributed", "atb_core.nn.module", "atb_core.nn.network_manager",
        "atb_core.nn.parameter", "atb_core.nn.tensor",
    ),
}  # fmt: skip


@functools.cache
def public_names() -> Mapping[str, frozenset[str]]:
    """Returns the names in `__all__` of every public module, under each of its paths; imports these modules."""
    modules = [module for group in PUBLIC_MODULES.values() for module in group]
    modules += [f"atb_core.nn.{path}" for path in import_module("atb_core.nn").OTHER_PATHS]
    return {module: frozenset(import_module(module).__all__) for module in modules}
