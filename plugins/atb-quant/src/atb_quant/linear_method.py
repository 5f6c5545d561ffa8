# SPDX-License-Identifier: Apache-2.0
"""The linear methods of ATB-Models: products with activations of 8 bits, by the scales of a checkpoint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from atb_core.graph import DataType, Tensor
from atb_core.layers import InferenceMode
from atb_core.nn import Parameter
from atb_quant.functions import quantize_per_channel, quantize_per_token, quantized_linear

__all__ = [
    "LINEAR_METHOD_ROUTER", "InferenceMode", "LinearMethodBase", "QuantTypeV3", "W8A8MixLinearMethod",
    "W8A8PerTensorLinearMethod", "W8A8PerTokenLinearMethod",
]  # fmt: skip


class QuantTypeV3(str, Enum):
    """The types of matrices that run as integers, by the names in descriptions of msModelSlim."""

    W8A8 = "W8A8"
    W8A8_DYNAMIC = "W8A8_DYNAMIC"
    W8A8_MIX = "W8A8_MIX"


class LinearMethodBase(ABC):
    """Base of the methods, a `LinearMethod` of `layers.linear`; `layer` is a `BaseLinear`."""

    has_bias = False

    def create_module(self, layer: Any, shapes: Sequence[tuple[int, int]]) -> None:
        """Sets the int8 `layer.weight` `[n, k]` of matrices with these shapes."""
        layer.weight = layer.make_parameter("weight", shapes, DataType.INT8)

    @abstractmethod
    def apply(self, layer: Any, input_tensor: Tensor) -> Tensor:
        """Records the product of `input_tensor` `[..., k]`: `[..., n]` of the model's dtype."""


class W8A8PerTensorLinearMethod(LinearMethodBase):
    """Rounds activations by one scale and offset, which the checkpoint has; the bias is int32 before the scales.

    In float16, the scales of outputs are the bits of float32 in int64, as ATB wants them.
    """

    has_bias = True

    def create_module(self, layer: Any, shapes: Sequence[tuple[int, int]]) -> None:
        """Sets `weight`, `deq_scale` `[n]`, `quant_bias` int32 `[n]`, and `input_scale` and `input_offset` `[1]`."""
        super().create_module(layer, shapes)
        dtype, rows = layer.config.data_type, [(n,) for n, _ in shapes]
        bits = DataType.INT64 if dtype is DataType.FLOAT16 else DataType.FLOAT
        layer.deq_scale = layer.make_parameter("deq_scale", rows, bits)
        layer.quant_bias = layer.make_parameter("quant_bias", rows, DataType.INT32)
        # Packed matrices have one input: the loader delivers the scale once, with the first.
        layer.input_scale = Parameter(layer.prefixes[0], "input_scale", (1,), dtype)
        layer.input_offset = Parameter(layer.prefixes[0], "input_offset", (1,), DataType.INT8)

    def apply(self, layer: Any, input_tensor: Tensor) -> Tensor:
        """Records the rounding and the product."""
        x = quantize_per_channel(input_tensor, layer.input_scale.get_tensor(), layer.input_offset.get_tensor())
        scale, bias = layer.deq_scale.get_tensor(), layer.quant_bias.get_tensor()
        return quantized_linear(x, layer.weight.get_tensor(), scale, layer.config.data_type, bias=bias)


class W8A8PerTokenLinearMethod(LinearMethodBase):
    """Rounds each row of activations by a scale of its own; a bias of the layer is added behind the product."""

    def create_module(self, layer: Any, shapes: Sequence[tuple[int, int]]) -> None:
        """Sets `weight` and `weight_scale` float32 `[n]`."""
        super().create_module(layer, shapes)
        layer.weight_scale = layer.make_parameter("weight_scale", [(n,) for n, _ in shapes], DataType.FLOAT)

    def apply(self, layer: Any, input_tensor: Tensor) -> Tensor:
        """Records the rounding and the product."""
        x, token_scale = quantize_per_token(input_tensor)
        scale = layer.weight_scale.get_tensor()
        return quantized_linear(x, layer.weight.get_tensor(), scale, layer.config.data_type, token_scale)


class W8A8MixLinearMethod(W8A8PerTokenLinearMethod):
    """Runs as `W8A8_DYNAMIC` in every step: one scale for all rows, which ATB-Models uses in decode, is less exact."""


#: The method of each type and step.
LINEAR_METHOD_ROUTER: Mapping[QuantTypeV3, Mapping[InferenceMode, type[LinearMethodBase]]] = {
    QuantTypeV3.W8A8: {InferenceMode.ANY: W8A8PerTensorLinearMethod},
    QuantTypeV3.W8A8_DYNAMIC: {InferenceMode.ANY: W8A8PerTokenLinearMethod},
    QuantTypeV3.W8A8_MIX: {InferenceMode.ANY: W8A8MixLinearMethod},
}
