# SPDX-License-Identifier: Apache-2.0
"""Gated feed-forward layers."""

from __future__ import annotations

from typing import Any

from atb_core.errors import ConfigError
from atb_core.graph.tensor import Tensor
from atb_core.layers.base import Layer, LayerConfig, ShapeSource
from atb_core.layers.linear.linear import MergedColumnParallelLinear, RowParallelLinear
from atb_core.nn.functional import ActType, GeluMode, activation, split

__all__ = ["Mlp"]


# Activations by their names in configurations.
_ACTIVATIONS = {
    "silu": (ActType.SWISH, GeluMode.TANH),
    "swish": (ActType.SWISH, GeluMode.TANH),
    "gelu": (ActType.GELU, GeluMode.NONE),
    "gelu_pytorch_tanh": (ActType.GELU, GeluMode.TANH),
    "gelu_new": (ActType.GELU, GeluMode.TANH),
    "relu": (ActType.RELU, GeluMode.TANH),
}


class Mlp(Layer):
    """Computes `down(act(gate(x)) * up(x))` with gate and up in one packed weight.

    A checkpoint has gate and up as `gate_proj` and `up_proj`, or packed as `gate_up_proj`.

    A subclass may replace `gate_up` and `down`.

    Args:
        bias: adds a bias to all three matrices; `config.mlp_bias` by default.
        intermediate_size: width between the matrices; `config.intermediate_size` by default.
        activation: name of the function `act`, such as `"silu"` or `"gelu_pytorch_tanh"`; `config.hidden_act` by
            default.
    """

    def __init__(
        self,
        config: LayerConfig,
        file_loader: ShapeSource | None,
        prefix: str,
        *args: Any,
        bias: bool | None = None,
        intermediate_size: int | None = None,
        activation: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(config, file_loader, prefix, *args, **kwargs)
        self.activation = config.hidden_act if activation is None else activation
        if self.activation not in _ACTIVATIONS:
            raise ConfigError(
                f"{prefix} has no activation {self.activation!r}", hint=f"It has {', '.join(_ACTIVATIONS)}."
            )
        hidden, inner = config.hidden_size, intermediate_size or config.intermediate_size
        bias = config.mlp_bias if bias is None else bias
        prefixes = [f"{prefix}.gate_proj", f"{prefix}.up_proj"]
        self.gate_up = MergedColumnParallelLinear(
            config, file_loader, prefixes, bias, in_features=hidden, out_features=[inner, inner],
            packed=f"{prefix}.gate_up_proj",
        )  # fmt: skip
        self.down = RowParallelLinear(
            config, file_loader, f"{prefix}.down_proj", bias, in_features=inner, out_features=hidden
        )

    def forward(self, inputs: Tensor, **kwargs: Any) -> Tensor:
        """Records the layer: `[T, hidden_size]` to the same shape. `kwargs` are for subclasses."""
        if isinstance(self.gate_up, MergedColumnParallelLinear):
            (packed,) = self.gate_up(inputs, split_outputs=False)
        else:
            packed = self.gate_up(inputs)
        kind, mode = _ACTIVATIONS[self.activation]
        if kind is ActType.SWISH:
            return self.down(activation(packed, ActType.SWIGLU))  # type: ignore[no-any-return]
        gate, up = split(packed, 2, -1)
        return self.down(activation(gate, kind, gelu_mode=mode) * up)  # type: ignore[no-any-return]
