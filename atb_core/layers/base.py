# SPDX-License-Identifier: Apache-2.0
"""The base of layers, and the parts of a configuration, of a model's sizes and of a checkpoint that they read."""

from __future__ import annotations

from typing import Any, Protocol, cast

from atb_core.errors import ConfigError
from atb_core.graph.dtype import DataType
from atb_core.nn.distributed.mapping import Mapping
from atb_core.nn.module import Module


class LayerConfig(Protocol):
    """The fields of a model's configuration that layers read. Sizes are in elements."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int | None
    head_dim: int | None
    hidden_act: str
    rms_norm_eps: float
    attention_bias: bool
    mlp_bias: bool
    use_qk_norm: bool

    @property
    def data_type(self) -> DataType:
        """Returns the element type of the model's weights and activations."""


class MoeLayerConfig(LayerConfig, Protocol):
    """The further fields that layers with experts read."""

    num_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    shared_expert_intermediate_size: int
    norm_topk_prob: bool


class HeadCounts(Protocol):
    """The numbers of heads that this process holds and the size of one."""

    num_heads: int
    num_kv_heads: int
    head_dim: int


class ShapeSource(Protocol):
    """The part of a weight loader that constructors use: shapes from the checkpoint's headers."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of a tensor of the checkpoint."""


class Layer(Module):
    """A layer with weights. It keeps the arguments that every layer of a decoder gets, for subclasses.

    Construction reads no weights: a subclass may replace the modules that its base creates.

    Args:
        file_loader: read for shapes that are not given; may be `None`.
        prefix: the layer's name in the checkpoint.
        config_metadata: head counts of this process; those of the whole model by default.
        infer_param: decisions that are made when the model is opened.
        kwargs: arguments of subclasses; ignored.
    """

    def __init__(
        self,
        config: LayerConfig,
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
        self.mapping = Mapping()


def adds_bias(file_loader: ShapeSource | None, prefix: str) -> bool:
    """Returns true if a quantised checkpoint has a bias at `prefix`, also where the architecture has none.

    Methods against outliers shift activations before they are rounded, and take the shift back in a bias.
    """
    return getattr(file_loader, "quantization", None) is not None and f"{prefix}.bias" in cast(Any, file_loader)


def stored_shape(file_loader: ShapeSource | None, name: str) -> tuple[int, ...]:
    """Returns the shape of `name` in the checkpoint; ConfigError without a loader."""
    if file_loader is None:
        raise ConfigError(
            f"the sizes of {name} are unknown: neither sizes nor a weight loader were given",
            hint="Pass in_features and out_features, or a loader to read the shape from.",
        )
    return tuple(file_loader.shape(name))
