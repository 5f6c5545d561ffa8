# SPDX-License-Identifier: Apache-2.0
"""The cache of each layer of a model: its memory, inputs of networks and checks of steps are worked out from this."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from atb_core.errors import GraphError
from atb_core.graph.dtype import DataType
from atb_core.graph.ops.attention import cache_width

__all__ = ["CacheTensor", "KVCacheSpec"]


@dataclass(frozen=True)
class CacheTensor:
    """One tensor of a layer's cache.

    Attributes:
        name: within the layer, such as "k"; in networks the tensor of layer 3 is `layer_3_k_cache`.
        num_heads: vectors of a token, on this process.
        head_dim: elements of a vector.
        dtype: INT8 is for vectors of floats, each as integers with a scale.
    """

    name: str
    num_heads: int
    head_dim: int
    dtype: DataType

    def shape(self, num_blocks: Any, block_size: Any) -> tuple[Any, ...]:
        """Returns `[num_blocks, block_size, num_heads, head_dim]`; in int8 the last size is 4 more, a scale's bytes."""
        return num_blocks, block_size, self.num_heads, cache_width(self.head_dim, self.dtype)

    @property
    def bytes_per_token(self) -> int:
        """Returns the bytes that a token takes."""
        return int(math.prod(self.shape(1, 1))) * self.dtype.itemsize


@dataclass(frozen=True)
class KVCacheSpec:
    """The cache of one layer, as the model's `kv_cache_spec` declares it.

    Attributes:
        tensors: keys and values; or one tensor that is both, which attention gets as `k_cache` and as `v_cache`.

    Raises:
        GraphError: there are none, more than two, or two of one name.
    """

    tensors: tuple[CacheTensor, ...]

    def __post_init__(self) -> None:
        names = [tensor.name for tensor in self.tensors]
        if len(names) not in (1, 2) or len(set(names)) < len(names):
            raise GraphError(
                f"a layer's cache must be one tensor or two with different names, not [{', '.join(names)}]",
                hint="A layer can keep further vectors of a token as more heads of a tensor.",
            )

    @classmethod
    def of_heads(cls, num_kv_heads: int, head_dim: int, dtype: DataType) -> KVCacheSpec:
        """Returns the cache of keys and values of `num_kv_heads` heads, "k" and "v"."""
        return cls(tuple(CacheTensor(name, num_kv_heads, head_dim, dtype) for name in ("k", "v")))

    @property
    def bytes_per_token(self) -> int:
        """Returns the bytes that a token takes in the layer."""
        return sum(tensor.bytes_per_token for tensor in self.tensors)


def named_tensors(specs: Iterable[KVCacheSpec]) -> list[dict[str, CacheTensor]]:
    """Returns the tensors of each layer by the names of the inputs of networks."""
    return [{f"layer_{i}_{tensor.name}_cache": tensor for tensor in spec.tensors} for i, spec in enumerate(specs)]


def head_dims(specs: Iterable[KVCacheSpec]) -> list[int]:
    """Returns the different sizes of the heads in caches, the smallest first."""
    return sorted({tensor.head_dim for spec in specs for tensor in spec.tensors})
