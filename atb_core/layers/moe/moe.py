# SPDX-License-Identifier: Apache-2.0
"""A mixture of experts: a gate that chooses, the chosen experts, and perhaps one that all tokens share."""

from __future__ import annotations

from typing import Any

from atb_core.graph.tensor import Tensor
from atb_core.layers.base import HeadCounts, MoeLayerConfig, ShapeSource
from atb_core.layers.linear.linear import ReplicatedLinear
from atb_core.layers.mlp.mlp import Mlp
from atb_core.layers.moe.fused_experts import FusedExperts
from atb_core.nn.functional import ActType, activation, moe_topk_softmax
from atb_core.nn.module import Module

__all__ = ["Moe"]


class Moe(Module):
    """Every token through the `num_experts_per_tok` experts that `<prefix>.gate` rates highest.

    An expert counts by its probability among all experts, or with `norm_topk_prob` among the chosen ones; these are
    float32 in every precision. With `shared_expert_intermediate_size` every token also goes through
    `<prefix>.shared_expert`, which counts by the sigmoid of `<prefix>.shared_expert_gate`.

    A subclass may rate differently by overriding `route`, or put other layers into `gate`, `experts`,
    `shared_expert` and `shared_expert_gate`: construction costs nothing.
    """

    def __init__(
        self,
        config: MoeLayerConfig,
        file_loader: ShapeSource | None,
        prefix: str,
        config_metadata: HeadCounts | None = None,
        infer_param: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.config = config
        self.prefix = prefix
        self.config_metadata = config_metadata
        self.infer_param = infer_param
        hidden, shared = config.hidden_size, config.shared_expert_intermediate_size
        self.gate = ReplicatedLinear(
            config, file_loader, f"{prefix}.gate", in_features=hidden, out_features=config.num_experts
        )
        self.experts = FusedExperts(config, file_loader, f"{prefix}.experts")
        if shared:
            known = (config_metadata, infer_param)
            self.shared_expert = Mlp(
                config, file_loader, f"{prefix}.shared_expert", *known, bias=False, intermediate_size=shared
            )
            self.shared_expert_gate = ReplicatedLinear(
                config, file_loader, f"{prefix}.shared_expert_gate", in_features=hidden, out_features=1
            )

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """For each token of `x [T, hidden_size]` its experts and how much they count.

        Returns:
            Weights `[T, k]` float32 and experts `[T, k]` int32.
        """
        config = self.config
        weights, expert_idx, _ = moe_topk_softmax(self.gate(x), config.num_experts_per_tok, config.norm_topk_prob)
        return weights, expert_idx

    def forward(self, x: Tensor, **kwargs: Any) -> Tensor:
        """`x [T, hidden_size]` to the same shape."""
        routed = self.experts(x, *self.route(x))
        if not self.config.shared_expert_intermediate_size:
            return routed  # type: ignore[no-any-return]
        share = activation(self.shared_expert_gate(x), ActType.SIGMOID)
        return routed + share * self.shared_expert(x)  # type: ignore[no-any-return]
