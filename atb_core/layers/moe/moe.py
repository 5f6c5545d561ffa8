# SPDX-License-Identifier: Apache-2.0
"""Mixture of experts with a gate and, optionally, a shared expert."""

from __future__ import annotations

from typing import Any

from atb_core.graph.tensor import Tensor
from atb_core.layers.base import Layer, MoeLayerConfig, ShapeSource
from atb_core.layers.linear.linear import ReplicatedLinear
from atb_core.layers.mlp.mlp import Mlp
from atb_core.layers.moe.fused_experts import FusedExperts
from atb_core.nn.functional import ActType, activation, moe_topk_softmax

__all__ = ["Moe"]


class Moe(Layer):
    """Sums the outputs of the `num_experts_per_tok` experts that `<prefix>.gate` rates highest for each token.

    The weight of an expert is its probability among all experts, or with `norm_topk_prob` among the chosen ones, in
    float32. With `shared_expert_intermediate_size` the sum includes `<prefix>.shared_expert`, weighted by the sigmoid
    of `<prefix>.shared_expert_gate`.

    A subclass may override `route` or replace `gate`, `experts`, `shared_expert` and `shared_expert_gate`.
    """

    config: MoeLayerConfig

    def __init__(
        self, config: MoeLayerConfig, file_loader: ShapeSource | None, prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(config, file_loader, prefix, *args, **kwargs)
        hidden, shared = config.hidden_size, config.shared_expert_intermediate_size
        self.gate = ReplicatedLinear(
            config, file_loader, f"{prefix}.gate", in_features=hidden, out_features=config.num_experts
        )
        self.gate.weight.quantizable = False
        self.experts = FusedExperts(config, file_loader, f"{prefix}.experts")
        if shared:
            sizes = (self.config_metadata, self.infer_param)
            self.shared_expert = Mlp(
                config, file_loader, f"{prefix}.shared_expert", *sizes, bias=False, intermediate_size=shared
            )
            self.shared_expert_gate = ReplicatedLinear(
                config, file_loader, f"{prefix}.shared_expert_gate", in_features=hidden, out_features=1
            )
            self.shared_expert_gate.weight.quantizable = False

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Chooses experts for each token of `x [T, hidden_size]`: weights `[T, k]` float32, experts `[T, k]` int32."""
        config = self.config
        weights, expert_idx, _ = moe_topk_softmax(self.gate(x), config.num_experts_per_tok, config.norm_topk_prob)
        return weights, expert_idx

    def forward(self, x: Tensor, **kwargs: Any) -> Tensor:
        """Records the layer: `x [T, hidden_size]` to the same shape."""
        routed = self.experts(x, *self.route(x))
        if not self.config.shared_expert_intermediate_size:
            return routed  # type: ignore[no-any-return]
        share = activation(self.shared_expert_gate(x), ActType.SIGMOID)
        return routed + share * self.shared_expert(x)  # type: ignore[no-any-return]
