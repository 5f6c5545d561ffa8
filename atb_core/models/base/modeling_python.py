# SPDX-License-Identifier: Apache-2.0
"""Decoder layers and decoder models.

`BaseLayer` and `BaseModel` define how layers and models are called and record the usual pre-norm decoder; a subclass
creates the modules. `DecoderLayer` and `DecoderModel` also create them, from the classes that a subclass names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from atb_core import nn
from atb_core.graph.tensor import Tensor
from atb_core.layers.attention.attention import Attention
from atb_core.layers.attention.long_form import accepts_long_form, accepts_long_names, call_layer, in_own_names
from atb_core.layers.attention.metadata import AttentionMetadata
from atb_core.layers.base import Layer, ShapeSource
from atb_core.layers.embedding.word_embedding import ParallelEmbedding
from atb_core.layers.mlp.mlp import Mlp
from atb_core.layers.moe.moe import Moe
from atb_core.layers.norm.normalization import RmsNorm
from atb_core.models.base.config import BaseConfig
from atb_core.models.base.mindie_llm_config import ModelStatus
from atb_core.models.base.moe_config import MoeConfig
from atb_core.models.runtime.inputs import table_names

if TYPE_CHECKING:
    from atb_core.models.base.mindie_llm_config import InferenceParameter

__all__ = ["BaseLayer", "BaseModel", "DecoderLayer", "DecoderModel", "MoeDecoderLayer", "MoeDecoderModel"]


class BaseLayer(Layer):
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
        own_prefix = f"{prefix}.layers.{layer_idx}" if prefix else f"layers.{layer_idx}"
        metadata = config_metadata or ModelStatus.from_config(config)
        super().__init__(config, file_loader, own_prefix, metadata.of_layer(config, layer_idx), infer_param)
        self.layer_idx = layer_idx
        # The migration guide creates the one and calls the other.
        self.add_aliases({"input_layernorm": "input_layer_norm"})

    @accepts_long_form
    def forward(self, inputs: Tensor, metadata: AttentionMetadata, **kwargs: Any) -> Tensor:
        """Records attention and feed-forward, each with its residual: `[T, hidden_size]` to the same shape.

        ATB-Models' long form is accepted too, see `layers.attention.long_form`.
        """
        attended = call_layer(self.self_attn, self.input_layernorm(inputs), metadata, **kwargs)
        residual = attended + inputs
        normed = self.post_attention_layernorm(residual)
        return self.mlp(normed, is_prefill=metadata.is_prefill, **kwargs) + residual  # type: ignore[no-any-return]


class BaseModel(Layer):
    """A stack of decoder layers. A subclass sets `embed_tokens`, `layers` and `norm`."""

    config: BaseConfig

    def __init__(
        self,
        config: BaseConfig,
        file_loader: ShapeSource | None,
        prefix: str,
        config_metadata: ModelStatus | None = None,
        infer_param: InferenceParameter | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(config, file_loader, prefix, config_metadata or ModelStatus.from_config(config), infer_param)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "forward" in cls.__dict__:
            cls.forward = in_own_names(cls.forward)  # type: ignore[method-assign]

    @accepts_long_names
    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        cos_table: Tensor,
        sin_table: Tensor,
        k_caches: Sequence[Tensor],
        v_caches: Sequence[Tensor],
        slots: Tensor,
        attention_mask: Tensor | None,
        input_lengths: Tensor,
        block_tables: Tensor | None,
        *,
        is_prefill: bool = True,
        q_lens: Tensor | None = None,
        layer_inputs: Mapping[str, Tensor] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Records the layers: token ids `[T]` to normalized hidden states `[T, hidden_size]`.

        `input_ids` and `position_ids` are `[T]` int64, the tables `[positions, rotated]`; there is one cache for each
        layer. `AttentionMetadata` describes the rest. `layer_inputs` are the inputs of layers with another rotation or
        with a window. `kwargs` are arguments of features, passed to every layer. ATB-Models' names and order are
        accepted too, see `layers.attention.long_form`.
        """
        hidden = self.embed_tokens(input_ids)
        further = {"cos_table": cos_table, "sin_table": sin_table, **(layer_inputs or {})}
        ropes = [rope for rope in map(self.config.rope_of, range(len(self.layers))) if rope is not None]
        rows = {
            rope: [nn.functional.gather(further[name], 0, position_ids) for name in table_names(i)]
            for i, rope in enumerate(dict.fromkeys(ropes))
        }
        for index, layer in enumerate(self.layers):
            rope, window = self.config.rope_of(index), self.config.window_of(index)
            cos, sin = (None, None) if rope is None else rows[rope]
            metadata = AttentionMetadata(
                cos,
                sin,
                k_caches[index],
                v_caches[index],
                slots if window is None else further["window_slots"],
                input_lengths if window is None or is_prefill else further["window_lengths"],
                attention_mask if window is None or not is_prefill else further["window_mask"],
                block_tables,
                is_prefill,
                window,
                interleaved=rope is not None and rope.interleaved,
                q_lens=q_lens,
            )
            hidden = call_layer(layer, hidden, metadata, **kwargs)
        return self.norm(hidden)  # type: ignore[no-any-return]


class DecoderLayer(BaseLayer):
    """A decoder layer whose modules are of the classes `attention_cls` and `mlp_cls`."""

    attention_cls: ClassVar[type[nn.Module]] = Attention
    mlp_cls: ClassVar[type[nn.Module]] = Mlp

    def __init__(
        self, config: BaseConfig, file_loader: ShapeSource | None, prefix: str, layer_idx: int, **kwargs: Any
    ) -> None:
        super().__init__(config, file_loader, prefix, layer_idx, **kwargs)
        kwargs.pop("config_metadata", None)
        kwargs.pop("infer_param", None)
        sizes = (self.config_metadata, self.infer_param)
        attention_cls: Any = self.attention_cls
        self.self_attn = attention_cls(config, file_loader, f"{self.prefix}.self_attn", *sizes, **kwargs)
        feed_forward_cls: Any = self.feed_forward_cls()
        self.mlp = feed_forward_cls(config, file_loader, f"{self.prefix}.mlp", *sizes, **kwargs)
        self.input_layernorm = RmsNorm(config, file_loader, f"{self.prefix}.input_layernorm")
        self.post_attention_layernorm = RmsNorm(config, file_loader, f"{self.prefix}.post_attention_layernorm")

    def feed_forward_cls(self) -> type[nn.Module]:
        """Returns the class of this layer's `mlp`; override it if layers of one model differ."""
        return self.mlp_cls


class DecoderModel(BaseModel):
    """A decoder model whose layers are of the class `layer_cls`."""

    layer_cls: ClassVar[type[BaseLayer]] = DecoderLayer

    def __init__(self, config: BaseConfig, file_loader: ShapeSource | None, prefix: str, **kwargs: Any) -> None:
        super().__init__(config, file_loader, prefix, **kwargs)
        self.embed_tokens = ParallelEmbedding(config, file_loader, f"{prefix}.embed_tokens")
        self.layers = nn.ModuleList(
            [
                self.layer_cls_of(index)(config, file_loader, prefix, index, **kwargs)
                for index in range(config.num_hidden_layers)
            ]
        )
        self.norm = RmsNorm(config, file_loader, f"{prefix}.norm")

    def layer_cls_of(self, layer_idx: int) -> type[BaseLayer]:
        """Returns the class of layer `layer_idx`; override it if layers of one model are of different classes."""
        return self.layer_cls


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
