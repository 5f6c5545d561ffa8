# SPDX-License-Identifier: Apache-2.0
"""Gated feed-forward layers."""

from __future__ import annotations

from typing import Any

from atb_core.graph.tensor import Tensor
from atb_core.layers.base import Layer, LayerConfig, ShapeSource
from atb_core.layers.linear.linear import MergedColumnParallelLinear, RowParallelLinear
from atb_core.nn.functional import ActType, activation

__all__ = ["Mlp"]


class Mlp(Layer):
    """Computes `down(silu(gate(x)) * up(x))` with gate and up in one packed weight.

    A subclass may replace `gate_up` and `down`.

    Args:
        bias: adds a bias to all three matrices; `config.mlp_bias` by default.
        intermediate_size: width between the matrices; `config.intermediate_size` by default.
    """

    def __init__(
        self,
        config: LayerConfig,
        file_loader: ShapeSource | None,
        prefix: str,
        *args: Any,
        bias: bool | None = None,
        intermediate_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(config, file_loader, prefix, *args, **kwargs)
        hidden, inner = config.hidden_size, intermediate_size or config.intermediate_size
        bias = config.mlp_bias if bias is None else bias
        prefixes = [f"{prefix}.gate_proj", f"{prefix}.up_proj"]
        self.gate_up = MergedColumnParallelLinear(
            config, file_loader, prefixes, bias, in_features=hidden, out_features=[inner, inner]
        )
        self.down = RowParallelLinear(
            config, file_loader, f"{prefix}.down_proj", bias, in_features=inner, out_features=hidden
        )

    def forward(self, inputs: Tensor, **kwargs: Any) -> Tensor:
        """Records the layer: `[T, hidden_size]` to the same shape. `kwargs` are for subclasses."""
        if isinstance(self.gate_up, MergedColumnParallelLinear):
            (packed,) = self.gate_up(inputs, split_outputs=False)
        else:
            packed = self.gate_up(inputs)
        return self.down(activation(packed, ActType.SWIGLU))  # type: ignore[no-any-return]
