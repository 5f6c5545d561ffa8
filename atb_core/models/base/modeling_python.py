# SPDX-License-Identifier: Apache-2.0
"""Decoder layers and decoder models: call signatures that families share, and bricks to build them from.

`BaseLayer` and `BaseModel` fix how layers and models are called and compute the usual pre-norm decoder;
a subclass creates the modules. `DecoderLayer` and `DecoderModel` also create them, from the classes that
a subclass names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from atb_core import nn
from atb_core.graph.tensor import Tensor
from atb_core.layers.attention.attention import Attention
from atb_core.layers.base import ShapeSource
from atb_core.layers.embedding.word_embedding import ParallelEmbedding
from atb_core.layers.mlp.mlp import Mlp
from atb_core.layers.norm.normalization import RmsNorm
from atb_core.models.base.config import BaseConfig
from atb_core.models.base.mindie_llm_config import ModelStatus

if TYPE_CHECKING:
    from atb_core.models.base.mindie_llm_config import InferenceParameter

__all__ = ["BaseLayer", "BaseModel", "DecoderLayer", "DecoderModel"]


class BaseLayer(nn.Module):
    """One decoder layer. A subclass sets `input_layernorm`, `self_attn`, `post_attention_layernorm`, `mlp`.

    In a network each layer becomes a segment of its own, by its module path.

    Args:
        prefix: the model's prefix in the checkpoint; the layer's own is `<prefix>.layers.<layer_idx>`.
    """

    def __init__(
        self,
        config: BaseConfig,
        file_loader: ShapeSource | None,
        prefix: str,
        layer_idx: int,
        config_metadata: ModelStatus | None = None,
        infer_param: InferenceParameter | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.prefix = f"{prefix}.layers.{layer_idx}" if prefix else f"layers.{layer_idx}"
        self.config_metadata = config_metadata or ModelStatus.from_config(config)
        self.infer_param = infer_param
        # The migration guide creates the one and calls the other.
        self.add_aliases({"input_layernorm": "input_layer_norm"})

    def forward(
        self,
        inputs: Tensor,
        cos_emb: Tensor,
        sin_emb: Tensor,
        k_cache: Tensor,
        v_cache: Tensor,
        slots: Tensor,
        attention_mask: Tensor | None,
        seq_len: Tensor,
        block_table: Tensor | None,
        token_offset: Tensor | None = None,
        layer_ids: Tensor | None = None,
        is_prefill: bool = True,
        **kwargs: Any,
    ) -> Tensor:
        """Hidden states `[T, hidden_size]` through attention and feed-forward, each with its residual."""
        attended = self.self_attn(
            self.input_layernorm(inputs), cos_emb, sin_emb, k_cache, v_cache, slots, attention_mask, seq_len,
            block_table, token_offset, layer_ids, is_prefill, **kwargs,
        )  # fmt: skip
        residual = attended + inputs
        normed = self.post_attention_layernorm(residual)
        return self.mlp(normed, is_prefill=is_prefill, **kwargs) + residual  # type: ignore[no-any-return]


class BaseModel(nn.Module):
    """A stack of decoder layers. A subclass sets `embed_tokens`, `layers` and `norm`."""

    def __init__(
        self,
        config: BaseConfig,
        file_loader: ShapeSource | None,
        prefix: str,
        config_metadata: ModelStatus | None = None,
        infer_param: InferenceParameter | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.config = config
        self.prefix = prefix
        self.config_metadata = config_metadata or ModelStatus.from_config(config)
        self.infer_param = infer_param

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        cosine_table: Tensor,
        sine_table: Tensor,
        k_caches: Sequence[Tensor],
        v_caches: Sequence[Tensor],
        slots_mapping: Tensor,
        attention_mask: Tensor | None,
        seq_len: Tensor,
        block_table: Tensor | None,
        token_offset: Tensor | None = None,
        kv_cache_idx: Tensor | None = None,
        is_prefill: bool = True,
        **kwargs: Any,
    ) -> Tensor:
        """Token ids `[T]` to normed hidden states `[T, hidden_size]`.

        `cosine_table` and `sine_table` are `[positions, head_dim]`; the other arguments are those of a layer.
        """
        hidden = self.embed_tokens(input_ids)
        cos_emb = nn.functional.gather(cosine_table, 0, position_ids)
        sin_emb = nn.functional.gather(sine_table, 0, position_ids)
        for index, layer in enumerate(self.layers):
            hidden = layer(
                hidden, cos_emb, sin_emb, k_caches[index], v_caches[index], slots_mapping, attention_mask, seq_len,
                block_table, token_offset, kv_cache_idx, is_prefill, **kwargs,
            )  # fmt: skip
        return self.norm(hidden)  # type: ignore[no-any-return]


class DecoderLayer(BaseLayer):
    """A decoder layer whose modules are of the classes `attention_cls` and `mlp_cls`."""

    attention_cls: ClassVar[type[Attention]] = Attention
    mlp_cls: ClassVar[type[nn.Module]] = Mlp

    def __init__(
        self, config: BaseConfig, file_loader: ShapeSource | None, prefix: str, layer_idx: int, **kwargs: Any
    ) -> None:
        super().__init__(config, file_loader, prefix, layer_idx, **kwargs)
        kwargs.pop("config_metadata", None)
        kwargs.pop("infer_param", None)
        known = (self.config_metadata, self.infer_param)
        self.self_attn = self.attention_cls(config, file_loader, f"{self.prefix}.self_attn", *known, **kwargs)
        self.mlp = self.feed_forward_cls()(config, file_loader, f"{self.prefix}.mlp", *known, **kwargs)
        self.input_layernorm = RmsNorm(config, file_loader, f"{self.prefix}.input_layernorm")
        self.post_attention_layernorm = RmsNorm(config, file_loader, f"{self.prefix}.post_attention_layernorm")

    def feed_forward_cls(self) -> type[nn.Module]:
        """The class of this layer's `mlp`; override it where layers of one model differ."""
        return self.mlp_cls


class DecoderModel(BaseModel):
    """A decoder model whose layers are of the class `layer_cls`."""

    layer_cls: ClassVar[type[BaseLayer]] = DecoderLayer

    def __init__(self, config: BaseConfig, file_loader: ShapeSource | None, prefix: str, **kwargs: Any) -> None:
        super().__init__(config, file_loader, prefix, **kwargs)
        self.embed_tokens = ParallelEmbedding(config, file_loader, f"{prefix}.embed_tokens")
        self.layers = nn.ModuleList(
            [self.layer_cls(config, file_loader, prefix, index, **kwargs) for index in range(config.num_hidden_layers)]
        )
        self.norm = RmsNorm(config, file_loader, f"{prefix}.norm")
