# SPDX-License-Identifier: Apache-2.0
"""Linear layers over one or several matrices of the checkpoint, packed into one weight.

Several processes divide a column-parallel layer by outputs and a row-parallel one by inputs; in one process they are
the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from atb_core.errors import ConfigError, GraphError
from atb_core.graph.dtype import DataType
from atb_core.graph.tensor import Tensor
from atb_core.layers.base import LayerConfig, ShapeSource, adds_bias, stored_shape
from atb_core.layers.linear.adapters import adapted
from atb_core.nn.distributed import distributed
from atb_core.nn.functional import linear, split
from atb_core.nn.module import Module
from atb_core.nn.parameter import Parameter, WeightSource

__all__ = [
    "BaseLinear",
    "ColumnParallelLinear",
    "LinearMethod",
    "MergedColumnParallelLinear",
    "ParallelLMHead",
    "ReplicatedLinear",
    "RowParallelLinear",
]


class LinearMethod(Protocol):
    """A way to multiply that a quantised checkpoint chooses for a layer, with parameters of its own.

    Attributes:
        has_bias: true if the bias of the layer is among its parameters.
    """

    has_bias: bool

    def create_module(self, layer: BaseLinear, shapes: Sequence[tuple[int, int]]) -> None:
        """Sets `layer.weight` and further parameters; `shapes` are those of the layer's matrices."""

    def apply(self, layer: BaseLinear, input_tensor: Tensor) -> Tensor:
        """Records the product."""


class BaseLinear(Module):
    """Multiplies `x [..., k]` by the transposed weights of `prefixes`, joined along the outputs.

    Args:
        file_loader: read for sizes that are not given; may be `None`.
        prefixes: the checkpoint's name of the matrix without `.weight`, or several that are packed.
        bias: adds `<prefix>.bias`, for every prefix.
        in_features: k.
        out_features: n, one number or one for each prefix.
        tied_to: another layer's weight, used instead of an own one.
        packed: the name under which a checkpoint may have the joined matrix as it is.
    """

    def __init__(
        self,
        config: LayerConfig,
        file_loader: ShapeSource | None,
        prefixes: str | Sequence[str],
        bias: bool = False,
        *,
        in_features: int | None = None,
        out_features: int | Sequence[int] | None = None,
        tied_to: Parameter | None = None,
        packed: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.config = config
        self.prefixes = [prefixes] if isinstance(prefixes, str) else list(prefixes)
        self.prefix = packed_prefix(self.prefixes)
        self.packed = packed
        if tied_to is not None:
            self._tie(tied_to, bias, out_features)
            return
        shapes = _weight_shapes(file_loader, self.prefixes, in_features, out_features)
        self.out_sizes = [shape[0] for shape in shapes]
        choose = getattr(file_loader, "linear_method", None)
        self.method: LinearMethod | None = choose(self.prefixes, config.data_type) if choose else None
        if self.method is None:
            self.weight = self.make_parameter("weight", shapes)
        else:
            self.method.create_module(self, shapes)
        bias = bias or any(adds_bias(file_loader, prefix) for prefix in self.prefixes)
        bias = bias and (self.method is None or not self.method.has_bias)
        self.bias = self.make_parameter("bias", [(n,) for n in self.out_sizes]) if bias else None
        for parameter in (self.weight, self.bias):
            if packed is not None and parameter is not None:
                parameter.aliases.append(f"{packed}.{parameter.suffix}")

    def make_parameter(
        self, suffix: str, shapes: Sequence[tuple[int, ...]], dtype: DataType | None = None
    ) -> Parameter:
        """Returns a parameter that joins the tensors `<prefix>.<suffix>` of these shapes."""
        sources = [WeightSource(f"{p}.{suffix}", shape) for p, shape in zip(self.prefixes, shapes, strict=True)]
        whole = (sum(shape[0] for shape in shapes), *shapes[0][1:])
        return Parameter(self.prefix, suffix, whole, dtype or self.config.data_type, sources)

    def _tie(self, tied_to: Parameter, bias: bool, out_features: int | Sequence[int] | None) -> None:
        if bias or len(self.prefixes) != 1 or tied_to.declared_shape is None:
            raise ConfigError(f"{self.prefix} cannot share a weight: it has a bias or packs several matrices")
        rows = out_features if isinstance(out_features, int) else tied_to.declared_shape[0]
        self.bias = self.method = None
        self.out_sizes, self.weight = [rows], tied_to
        if (rows, self.config.hidden_size) == tied_to.declared_shape:
            # Some checkpoints store the shared matrix under both names.
            tied_to.aliases.append(f"{self.prefix}.weight")
        else:  # several processes divide one by rows, the other by columns
            self.weight = self.make_parameter("weight", [(rows, self.config.hidden_size)])

    def forward(self, input_tensor: Tensor, **kwargs: Any) -> Tensor:
        """Records the product.

        Args:
            input_tensor: `[..., k]`.
            kwargs: ATB-Models' arguments: `inference_mode` changes nothing, `enable_lora` and `group_list` are refused.
        """
        if kwargs.get("enable_lora") or kwargs.get("group_list") is not None:
            raise GraphError(
                "linear layers have no arguments for LoRA: enable_lora must be false and group_list None",
                hint="Leave them out; the features of LoRA add to every linear layer that is recorded.",
            )
        bias = self.bias.get_tensor() if self.bias is not None else None
        if self.method is None:
            product = linear(input_tensor, self.weight.get_tensor(), bias, False, True)
        else:
            product = self.method.apply(self, input_tensor)
            product = product if bias is None else product + bias
        return adapted(self, input_tensor, product)


class ColumnParallelLinear(BaseLinear):
    """A linear layer that is divided by outputs; several prefixes give one packed output."""


class ParallelLMHead(ColumnParallelLinear):
    """The matrix of the logits, which several processes divide by the vocabulary; rank 0 gets all logits."""

    def __init__(self, config: LayerConfig, file_loader: ShapeSource | None, prefix: str, **kwargs: Any) -> None:
        rows = distributed.even_part(config.vocab_size, config.hidden_size)
        super().__init__(config, file_loader, prefix, in_features=config.hidden_size, out_features=rows, **kwargs)

    def forward(self, input_tensor: Tensor, **kwargs: Any) -> Tensor:
        """Records the product and the gathering of its columns; see `BaseLinear.forward`."""
        logits = super().forward(input_tensor, **kwargs)
        return distributed.gather_columns(logits, self.config.vocab_size, to_all=False)


class RowParallelLinear(BaseLinear):
    """A linear layer that is divided by inputs; its partial results are summed over the processes."""

    def forward(self, input_tensor: Tensor, **kwargs: Any) -> Tensor:
        """Records the product and the sum over the processes; see `BaseLinear.forward`."""
        return distributed.all_reduce(super().forward(input_tensor, **kwargs))


class ReplicatedLinear(BaseLinear):
    """A linear layer that is not divided."""


class MergedColumnParallelLinear(BaseLinear):
    """Several linear layers of one input with one packed weight; `forward` returns a list with an output for each."""

    def __len__(self) -> int:
        """Returns the number of outputs that `forward` returns."""
        return len(self.out_sizes)

    def forward(  # type: ignore[override]
        self, input_tensor: Tensor, split_outputs: bool = True, **kwargs: Any
    ) -> list[Tensor]:
        """Records the products: an output `[..., n_i]` for each prefix, or `[packed]` if not `split_outputs`."""
        packed = super().forward(input_tensor, **kwargs)
        if not split_outputs or len(self.out_sizes) == 1:
            return [packed]
        return list(split(packed, self.out_sizes, -1))


def packed_prefix(prefixes: Sequence[str]) -> str:
    """Returns one name for several: their common parent, then their last parts joined by `_`."""
    if len(prefixes) == 1:
        return prefixes[0]
    parents = {prefix.rpartition(".")[0] for prefix in prefixes}
    if len(parents) > 1:
        return "_".join(prefixes)
    joined = "_".join(prefix.rpartition(".")[2] for prefix in prefixes)
    parent = parents.pop()
    return f"{parent}.{joined}" if parent else joined


def _weight_shapes(
    file_loader: ShapeSource | None,
    prefixes: Sequence[str],
    in_features: int | None,
    out_features: int | Sequence[int] | None,
) -> list[tuple[int, int]]:
    outs = [out_features] if isinstance(out_features, int) else out_features
    if outs is not None and len(outs) != len(prefixes):
        raise ConfigError(f"{len(outs)} output sizes were given for {len(prefixes)} matrices: {', '.join(prefixes)}")
    shapes = []
    for index, prefix in enumerate(prefixes):
        if outs is not None and in_features is not None:
            shapes.append((outs[index], in_features))
            continue
        stored = stored_shape(file_loader, f"{prefix}.weight")
        if len(stored) != 2:
            raise ConfigError(f"{prefix}.weight has shape {list(stored)}; a linear layer needs a matrix")
        shapes.append((stored[0] if outs is None else outs[index], stored[1] if in_features is None else in_features))
    if len({k for _, k in shapes}) > 1:
        raise ConfigError(f"{', '.join(prefixes)} cannot be packed: their input sizes are {[k for _, k in shapes]}")
    return shapes
