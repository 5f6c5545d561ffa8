# SPDX-License-Identifier: Apache-2.0
"""Adds the schemes of quantised checkpoints, the functions of `nn.quantized`, and fusions."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from atb_core.plugins import QuantScheme, hookimpl

if TYPE_CHECKING:
    from atb_core.checkpoint import WeightLoader
    from atb_core.checkpoint.safetensors import SafetensorsLoader
    from atb_core.graph import DataType
    from atb_core.graph.passes import Pass

# The names that checkpoints say, and the modules that read them.
_MODULES = {
    "awq": "awq",
    "compressed-tensors": "compressed",
    "fp8": "fp8",
    "gptq": "gptq",
    "msmodelslim": "modelslim",
}


@hookimpl
def atb_quant_schemes() -> list[QuantScheme]:
    """Returns the schemes; their modules are imported when a checkpoint is opened."""
    return [QuantScheme(name, partial(_open, name)) for name in _MODULES]


def _open(name: str, stored: SafetensorsLoader, settings: Mapping[str, Any], dtype: DataType) -> WeightLoader:
    from atb_quant.loader import QuantLoader

    module = importlib.import_module(f"atb_quant.{_MODULES[name]}")
    return QuantLoader(name, stored, dtype, module.parts(stored, settings))


@hookimpl
def atb_functions() -> list[Callable[..., Any]]:
    """Returns the functions of `nn.quantized`."""
    from atb_quant.functions import dequantize, quantize_per_channel, quantize_per_token, quantized_linear

    return [dequantize, quantize_per_channel, quantize_per_token, quantized_linear]


@hookimpl
def atb_fusion_passes() -> list[Pass]:
    """Returns the fusions of norms with roundings, and of products of integers with their scales."""
    from atb_quant import fusions, norm_quant

    return norm_quant.PASSES + fusions.PASSES
