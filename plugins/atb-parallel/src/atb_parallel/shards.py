# SPDX-License-Identifier: Apache-2.0
"""The part of a model that one process of a group has: its sizes, and a loader that reads no other part.

The model is made twice, whole and with the sizes of the part. Where the shapes of a weight differ is what is cut.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from atb_core.checkpoint import WeightLoader
from atb_core.errors import ConfigError, WeightsError
from atb_core.graph.arrays import Array, HostArray, numpy_dtype, to_numpy
from atb_core.graph.dtype import DataType
from atb_core.graph.quantized import QuantizedRows
from atb_core.layers.embedding.word_embedding import ParallelEmbedding
from atb_core.layers.linear.linear import BaseLinear, ReplicatedLinear, RowParallelLinear
from atb_core.layers.moe.fused_experts import FusedExperts
from atb_core.models.base.mindie_llm_config import MindIELLMConfig
from atb_core.models.runtime.weight_loading import collect_parameters
from atb_core.nn.distributed.mapping import Mapping as RankMapping
from atb_core.nn.parameter import Parameter

if TYPE_CHECKING:
    from atb_core.models.base.config import BaseConfig
    from atb_core.models.base.flash_causal_lm_v3 import CausalLM
    from atb_core.nn.distributed.distributed import ProcessGroup

_log = logging.getLogger(__name__)
# Fields of configurations that the processes divide, beside the heads.
_DIVIDED = ("num_attention_heads", "intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size")
_BODY = "model."
#: Layers that processes divide.
Divisible: TypeAlias = BaseLinear | FusedExperts | ParallelEmbedding
#: Outputs of each matrix of a linear layer, and inputs, that a process has.
Share: TypeAlias = tuple[list[slice], slice]


@dataclass(frozen=True)
class Cut:
    """Part of a stored tensor that a process has: `ranges` of dimension `dim` of shape `whole`, in their order."""

    whole: tuple[int, ...]
    dim: int
    ranges: tuple[tuple[int, int], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Returns the shape of the part."""
        size = sum(stop - start for start, stop in self.ranges)
        return (*self.whole[: self.dim], size, *self.whole[self.dim + 1 :])


def divided_config(config: BaseConfig, world_size: int) -> BaseConfig:
    """Returns the configuration of the part of one process.

    Fewer key/value heads than processes are replicated: each process has one.

    Raises:
        ConfigError: a size cannot be divided; the message names it.
    """
    changes: dict[str, Any] = {}
    for name in _DIVIDED:
        size = getattr(config, name, None)
        if not size:
            continue
        if size % world_size:
            raise _indivisible(name, size, world_size)
        changes[name] = size // world_size
    kv_heads = config.num_key_value_heads or config.num_attention_heads
    if kv_heads % world_size and world_size % kv_heads:
        raise _indivisible("num_key_value_heads", kv_heads, world_size)
    changes["num_key_value_heads"] = max(1, kv_heads // world_size)
    return config.replace(head_dim=config.head_dim, **changes)


def _check_heads(whole: CausalLM, part: CausalLM, world_size: int) -> None:
    """Raises ConfigError for a layer whose heads are not divided: its queries would meet keys of other heads."""
    for layer, (all_of, own) in enumerate(zip(whole.layer_status, part.layer_status, strict=True)):
        queries, keys = all_of.num_heads, all_of.num_kv_heads
        fits = queries % world_size == 0 and (keys % world_size == 0 or world_size % keys == 0)
        if not fits or (own.num_heads, own.num_kv_heads) != (queries // world_size, max(1, keys // world_size)):
            raise ConfigError(
                f"layer {layer} has {queries} heads of queries and {keys} of keys, which are {own.num_heads} and "
                f"{own.num_kv_heads} in each of {world_size} processes",
                hint="Run the model with tensor_parallel_size=1. Heads are divided that the configuration's heads_of "
                "works out from num_attention_heads and num_key_value_heads.",
            )


def _indivisible(name: str, size: int, world_size: int) -> ConfigError:
    return ConfigError(
        f"{name} = {size} cannot be divided among {world_size} processes",
        hint="Choose a tensor_parallel_size that divides the heads and the widths of the feed-forward layers.",
    )


def cuts_of(
    whole: CausalLM, part: CausalLM, rank: int, world_size: int, shared: Mapping[str, Parameter]
) -> dict[str, Cut]:
    """Returns what process `rank` has of each stored tensor that is divided, by its name.

    Args:
        whole: the model.
        part: with the sizes of one process.
        rank: number of the process.
        world_size: number of processes.
        shared: weights that the whole model has from another layer, by the names that they have in a part.

    Raises:
        ConfigError: a layer cannot be divided; the message names it.
    """
    owners = _owners(part)
    originals = {**{parameter.name: parameter for parameter in collect_parameters([whole])}, **shared}
    cuts: dict[str, Cut] = {}
    for parameter in collect_parameters([part]):
        original, owner = originals[parameter.name], owners.get(parameter.name)
        if original.declared_shape == parameter.declared_shape:
            if isinstance(owner, RowParallelLinear) and parameter is owner.weight:
                raise _undivided(parameter, "is summed over the processes, and its inputs are not divided")
            continue
        if owner is None or isinstance(owner, ReplicatedLinear) or parameter.has_processors:
            raise _undivided(parameter, "depends on sizes that are divided, and only linear layers and experts can be")
        cuts.update(_cuts_of_parameter(original, parameter, owner, rank, world_size))
    return cuts


def shared_weights(whole: CausalLM, part: CausalLM) -> dict[str, Parameter]:
    """Returns the weights of tied layers that a part has by themselves, by their names there.

    An embedding is divided by columns, a matrix of logits by rows.
    """
    known = {parameter.name for parameter in collect_parameters([whole])}
    linears = {each.prefix: each.weight for each in whole.modules() if isinstance(each, BaseLinear)}
    parts = [each for each in part.modules() if isinstance(each, BaseLinear)]
    return {each.weight.name: linears[each.prefix] for each in parts if each.weight.name not in known}


def _owners(model: CausalLM) -> dict[str, Divisible]:
    """Returns the layers that can be divided, by the names of their weights."""
    layers = [each for each in model.modules() if isinstance(each, Divisible)]
    return {p.name: layer for layer in layers for p in vars(layer).values() if isinstance(p, Parameter)}


def _undivided(parameter: Parameter, cause: str) -> ConfigError:
    return ConfigError(f"{parameter.name} {cause}", hint="Run the model with tensor_parallel_size=1.")


def _cuts_of_parameter(
    original: Parameter, parameter: Parameter, owner: Divisible, rank: int, world_size: int
) -> dict[str, Cut]:
    cuts, starts = {}, [0]
    for whole, part in zip(original.sources, parameter.sources, strict=True):
        differing = [dim for dim, (n, m) in enumerate(zip(whole.shape, part.shape, strict=True)) if n != m]
        expected = 1 if isinstance(owner, (RowParallelLinear, ParallelEmbedding)) else 0
        if isinstance(owner, FusedExperts):
            expected = 0 if parameter is owner.gate_up else 1
        size = part.shape[expected] if expected < len(part.shape) else 0
        # A single head of keys is whole in each process.
        if differing not in ([expected], []) or whole.shape[expected] % size:
            raise _undivided(parameter, f"is {list(whole.shape)} and {list(part.shape)} in a part")
        part_of_rank = _slice_of(whole.shape[expected], size, rank, world_size)
        cuts[part.name] = Cut(whole.shape, expected, ((part_of_rank.start, part_of_rank.stop),))
        starts.append(starts[-1] + (whole.shape[0] if expected == 0 else 0))
    if original.declared_shape is not None and (len(cuts) > 1 or parameter.name not in cuts):
        joined = _joined(original, list(cuts.values()), starts, isinstance(owner, FusedExperts))
        cuts.update(dict.fromkeys((original.name, *original.aliases), joined))
    return cuts


def _slice_of(whole: int, size: int, rank: int, world_size: int) -> slice:
    """Returns what process `rank` has of `whole` rows or columns; fewer parts than processes are copied."""
    begin = rank * (whole // size) // world_size * size
    return slice(begin, begin + size)


def _shares_of(whole: CausalLM, part: CausalLM, world_size: int) -> dict[str, list[Share]]:
    """Returns what each process has of each linear layer, by its name."""
    layers = {each.prefix: each for each in whole.modules() if isinstance(each, BaseLinear)}
    shares = {}
    for each in part.modules():
        if not isinstance(each, BaseLinear):
            continue
        sizes = list(zip(layers[each.prefix].out_sizes, each.out_sizes, strict=True))
        inputs = (_inputs(layers[each.prefix]), _inputs(each))
        shares[each.prefix] = [
            ([_slice_of(*pair, rank, world_size) for pair in sizes], _slice_of(*inputs, rank, world_size))
            for rank in range(world_size)
        ]
    return shares


def _inputs(linear: BaseLinear) -> int:
    assert linear.weight.declared_shape is not None
    return linear.weight.declared_shape[1]


def _joined(original: Parameter, cuts: Sequence[Cut], starts: Sequence[int], experts: bool) -> Cut:
    """Returns the cut of a checkpoint's tensor that holds all sources of a parameter."""
    assert original.declared_shape is not None
    if not experts:
        ranges = [(start + a, start + b) for (start, _), cut in zip(pairwise(starts), cuts, strict=True)
                  for a, b in cut.ranges]  # fmt: skip
        return Cut(original.declared_shape, cuts[0].dim, tuple(ranges))
    # All experts have the same ranges; gate and up are one below the other.
    ranges = []
    for source, cut in zip(original.sources, cuts, strict=True):
        place = source.place or ()
        if place and place[0] == 0:
            inner = place[1] if len(place) > 1 else slice(0, 0)
            assert isinstance(inner, slice)
            ranges += [(inner.start + a, inner.start + b) for a, b in cut.ranges]
    return Cut(original.declared_shape, cuts[0].dim + 1, tuple(ranges))


class PartLoader(WeightLoader):
    """Reads what one process has of a checkpoint.

    Args:
        loader: the whole checkpoint.
        cuts: of the tensors that are divided, by name.
        zeros: names of tensors that another process adds to the sums, such as the bias of a row-parallel layer.
        shared: names under which a process has a part of its own of another tensor.
    """

    def __init__(
        self,
        loader: WeightLoader,
        cuts: dict[str, Cut],
        zeros: Collection[str],
        shared: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._loader, self._cuts, self._zeros = loader, cuts, frozenset(zeros)
        stored = frozenset(loader.names())
        # A model that was saved without its head has names without the prefix of its body.
        named = ((name, each if each in stored else each.removeprefix(_BODY)) for name, each in shared.items())
        self._shared = dict(named)
        self._stored_twice = stored & self._shared.keys()
        self.quantization = loader.quantization
        self._expands = False
        #: Called before each reading; may raise an error, which ends the loading.
        self.before_read: Callable[[], None] = lambda: None

    @property
    def source(self) -> str:
        """The checkpoint's name in messages."""
        return self._loader.source

    def names(self) -> Sequence[str]:
        """Returns the names of all tensors."""
        return [*self._loader.names(), *(self._shared.keys() - self._stored_twice)]

    def _stored(self, name: str) -> str:
        return self._shared.get(name, name)

    def _cut(self, name: str) -> Cut | None:
        cut = self._cuts.get(name) or self._cuts.get(_BODY + name)
        return cut if cut is not None and cut.whole == tuple(self._loader.shape(self._stored(name))) else None

    def _is_zero(self, name: str) -> bool:
        return name in self._zeros or _BODY + name in self._zeros

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of the part."""
        cut = self._cut(name)
        return tuple(self._loader.shape(self._stored(name))) if cut is None else cut.shape

    def dtype(self, name: str) -> DataType:
        """Returns the element type."""
        return self._loader.dtype(self._stored(name))

    def nbytes(self, name: str) -> int:
        """Returns the bytes of the part in the file."""
        cut, whole = self._cut(name), self._loader.nbytes(self._stored(name))
        return whole if cut is None else whole * math.prod(cut.shape) // math.prod(cut.whole)

    def get(self, name: str) -> Array:
        """Reads the part."""
        self.before_read()
        if self._is_zero(name):
            return np.zeros(self.shape(name), numpy_dtype(self.dtype(name)))
        cut = self._cut(name)
        part = self._read(self._stored(name), cut)
        if name in self._stored_twice and not np.array_equal(to_numpy(part), to_numpy(self._read(name, cut))):
            raise WeightsError(
                f"{self.source}: the configuration says that {name} and {self._stored(name)} are one weight, "
                "but the two stored tensors differ",
                hint="Set tie_word_embeddings to false in config.json if both are meant.",
            )
        return part

    def _read(self, stored: str, cut: Cut | None) -> Array:
        if cut is None:
            return self._loader.get(stored)
        pieces = [to_numpy(self._loader.get_slice(stored, cut.dim, *ends)) for ends in cut.ranges]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=cut.dim)

    def read_into(self, name: str, out: HostArray) -> None:
        """Reads the part into an array."""
        self.before_read()
        if self._cut(name) is None and not self._is_zero(name) and name not in self._shared:
            self._loader.read_into(name, out)
        else:
            super().read_into(name, out)

    def get_slice(self, name: str, dim: int, start: int, stop: int) -> Array:
        """Reads a slice of the part."""
        index = (slice(None),) * dim + (slice(start, stop),)
        return np.ascontiguousarray(to_numpy(self.get(name))[index])

    def blocks(self, name: str, formats: Collection[str]) -> QuantizedRows | None:
        """Reads the part of a quantised matrix as it is stored; `None` if the ends of a part are inside of a block."""
        self.before_read()
        rows, cut = self._loader.blocks(self._stored(name), formats), self._cut(name)
        if rows is None or cut is None:
            return rows
        parts = [
            rows.blocks[start:stop] if cut.dim == 0 else _columns_of(rows, start, stop) for start, stop in cut.ranges
        ]
        if any(part is None for part in parts) or (cut.dim and len(parts) > 1):
            if not self._expands:
                _log.warning(
                    "%s: %s and others are divided inside of blocks of %s, so they are expanded",
                    self.source, name, rows.format,
                )  # fmt: skip
            self._expands = True
            return None
        blocks = np.ascontiguousarray(np.concatenate([part for part in parts if part is not None]))
        return QuantizedRows(rows.format, cut.shape[1], blocks)

    def linear_method(self, prefixes: Sequence[str], dtype: DataType) -> Any:
        """Returns the method of a layer, as of the whole checkpoint."""
        return self._loader.linear_method(prefixes, dtype)

    def unlisted(self) -> frozenset[str]:
        """Returns the names that the checkpoint's index leaves out."""
        return self._loader.unlisted()

    def identity(self) -> list[list[int]]:
        """Returns that of the whole checkpoint."""
        return self._loader.identity()

    def close(self) -> None:
        """Closes the checkpoint."""
        self._loader.close()


def _columns_of(rows: QuantizedRows, start: int, stop: int) -> HostArray | None:
    """Returns the blocks of columns `[start, stop)`; `None` if an end is inside of a block."""
    width = rows.blocks.shape[1]
    if rows.format.startswith("INTEGERS"):
        # int8 of all columns, then float32 scales and zeros of all groups.
        groups = (width - rows.columns) // 8
        unit = 1 if groups == 1 else rows.columns // groups
        first, last = (0, 1) if groups == 1 else (start // unit, stop // unit)
        places = [
            (start, stop),
            *((rows.columns + 4 * (of + first), rows.columns + 4 * (of + last)) for of in (0, groups)),
        ]
    else:
        unit = 256 if rows.format.endswith("_K") else 32
        size = width * unit // rows.columns
        places = [(start // unit * size, stop // unit * size)]
    if start % unit or stop % unit:
        return None
    return np.concatenate([rows.blocks[:, a:b] for a, b in places], axis=1)


class ModelPart(NamedTuple):
    """Holds what one process has of a model.

    Attributes:
        config: the sizes of the part.
        loader: reads the weights of the part.
        shares: what each process has of each linear layer, by its name.
    """

    config: BaseConfig
    loader: PartLoader
    shares: dict[str, list[Share]]


def part_of(group: ProcessGroup, model_cls: type[CausalLM], config: BaseConfig, loader: WeightLoader) -> ModelPart:
    """Returns what this process of a group has of a model.

    Raises:
        ConfigError: a size or a layer cannot be divided; the message names it.
    """
    rank, world_size = group.rank, group.world_size
    divided, mapping = divided_config(config, world_size), RankMapping(world_size, rank, group=group)
    whole = model_cls(MindIELLMConfig(config), loader)
    part = model_cls(MindIELLMConfig(divided, mapping=mapping), loader)
    _check_heads(whole, part, world_size)
    rows = [each for each in part.modules() if isinstance(each, RowParallelLinear)]
    biases = [getattr(each, name, None) for each in rows if rank for name in ("bias", "quant_bias")]
    zeros = [source.name for bias in biases if bias is not None for source in bias.sources]
    shared = shared_weights(whole, part)
    cuts = cuts_of(whole, part, rank, world_size, shared)
    own = PartLoader(loader, cuts, zeros, {name: weight.name for name, weight in shared.items()})
    return ModelPart(divided, own, _shares_of(whole, part, world_size))
