# SPDX-License-Identifier: Apache-2.0
"""The gated feed-forward layers of all experts, as two weights."""

from __future__ import annotations

from typing import Any

from atb_core.errors import ConfigError
from atb_core.graph.tensor import Tensor
from atb_core.layers.base import MoeLayerConfig, ShapeSource
from atb_core.nn.distributed import distributed
from atb_core.nn.functional import ActType, activation, grouped_matmul, moe_init_routing, moe_token_unpermute
from atb_core.nn.module import Module
from atb_core.nn.parameter import Parameter, WeightSource

__all__ = ["FusedExperts"]


class FusedExperts(Module):
    """Computes `down_e(silu(gate_e(x)) * up_e(x))` for each expert e of a token, summed with the token's weights.

    All experts' gate and up are one weight `<prefix>.gate_up_proj [experts, 2 * inner, hidden_size]`, all downs one
    `<prefix>.down_proj [experts, hidden_size, inner]`. A checkpoint holds them under these names, or expert by
    expert as `<prefix>.<e>.{gate,up,down}_proj.weight`.
    """

    def __init__(self, config: MoeLayerConfig, file_loader: ShapeSource | None, prefix: str, **kwargs: Any) -> None:
        super().__init__()
        self.config = config
        self.prefix = prefix
        if config.hidden_act not in ("silu", "swish"):
            raise ConfigError(f"{prefix}: experts with the activation {config.hidden_act!r} are not supported")
        experts, hidden, inner = config.num_experts, config.hidden_size, config.moe_intermediate_size
        halves = (("gate_proj", slice(0, inner)), ("up_proj", slice(inner, 2 * inner)))
        gates_ups = [
            WeightSource(f"{prefix}.{e}.{name}.weight", (inner, hidden), (e, half))
            for e in range(experts)
            for name, half in halves
        ]
        downs = [WeightSource(f"{prefix}.{e}.down_proj.weight", (hidden, inner), (e,)) for e in range(experts)]
        shape, dtype = (experts, 2 * inner, hidden), config.data_type
        self.gate_up = Parameter(prefix, "gate_up_proj", shape, dtype, gates_ups)
        self.down = Parameter(prefix, "down_proj", (experts, hidden, inner), dtype, downs)

    def forward(self, x: Tensor, weights: Tensor, expert_idx: Tensor) -> Tensor:
        """Records the weighted sum of the experts' outputs.

        Args:
            x: `[T, hidden_size]`.
            weights: `[T, k]` float32, the weight of each chosen expert.
            expert_idx: `[T, k]` int32, the chosen experts.

        Returns:
            `[T, hidden_size]`.
        """
        config = self.config
        rows, places, ends = moe_init_routing(x, expert_idx, config.num_experts_per_tok, config.num_experts)
        packed = grouped_matmul(rows, self.gate_up.get_tensor(), group_list=ends, transpose_b=True)
        inner = activation(packed, ActType.SWIGLU)
        outputs = grouped_matmul(inner, self.down.get_tensor(), group_list=ends, transpose_b=True)
        return distributed.all_reduce(moe_token_unpermute(outputs, places, weights))
