# SPDX-License-Identifier: Apache-2.0
"""Decoder layers with a mixture of experts."""

from __future__ import annotations

from typing import ClassVar

from atb_core import nn
from atb_core.layers.moe.moe import Moe
from atb_core.models.base.modeling_python import DecoderLayer, DecoderModel
from atb_core.models.base.moe_config import MoeConfig

__all__ = ["MoeDecoderLayer", "MoeDecoderModel"]


class MoeDecoderLayer(DecoderLayer):
    """A decoder layer whose feed-forward is of the class `moe_cls` if `config.is_sparse(layer_idx)`."""

    moe_cls: ClassVar[type[nn.Module]] = Moe
    config: MoeConfig

    def feed_forward_cls(self) -> type[nn.Module]:
        """Returns `moe_cls` for a layer with experts."""
        return self.moe_cls if self.config.is_sparse(self.layer_idx) else self.mlp_cls


class MoeDecoderModel(DecoderModel):
    """A decoder model whose layers are `MoeDecoderLayer`s."""

    layer_cls = MoeDecoderLayer
