# SPDX-License-Identifier: Apache-2.0
"""Size and memory of the paged key/value cache."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from atb_core.engine.host_memory import host_zeros
from atb_core.errors import EngineError
from atb_core.graph.arrays import Array, to_torch
from atb_core.layers.attention.kv_cache_spec import KVCacheSpec
from atb_core.runner.block_manager import BlockManager

if TYPE_CHECKING:
    import torch

    from atb_core.models.base.flash_causal_lm_v3 import CausalLM

Allocate = Callable[[tuple[int, ...], Any], Any]

_log = logging.getLogger(__name__)

# Of the memory that is free once the weights are loaded; the rest is for activations and other programs.
_SHARE_OF_AVAILABLE = 0.5


def plan_cache(
    bytes_per_block: int,
    block_size: int,
    *,
    context_len: int,
    max_model_len: int | None,
    max_num_seqs: int,
    num_blocks: int | None = None,
    kv_cache_memory_bytes: int | None = None,
    available: int | None = None,
) -> tuple[int, int]:
    """Chooses the number of blocks: as given, or enough for a full batch of full contexts if memory allows.

    `bytes_per_block` are of all layers. The options are those of `ModelRunner`. Without `max_model_len` the context may
    be shorter than `context_len`, the model's, if that does not fit in memory. `available` is the memory that may be
    used, in bytes; `None` if unknown.

    Returns:
        The number of blocks, and the longest context that they hold, in tokens.

    Raises:
        EngineError: What was given does not fit in memory, or the blocks cannot hold one full context.
    """
    wanted_len = max_model_len or context_len
    per_context = -(-wanted_len // block_size)
    if num_blocks is None and kv_cache_memory_bytes is not None:
        num_blocks = kv_cache_memory_bytes // bytes_per_block
    if num_blocks is not None:
        needed = num_blocks * bytes_per_block
        if available is not None and needed > available:
            raise EngineError(
                f"A key/value cache of {num_blocks} blocks takes {_mib(needed)}, but only {_mib(available)} of "
                "memory are available",
                hint="Lower num_blocks, kv_cache_memory_bytes, max_model_len or max_num_seqs.",
            )
    else:
        num_blocks = per_context * max_num_seqs
        if available is not None:
            num_blocks = min(num_blocks, int(available * _SHARE_OF_AVAILABLE) // bytes_per_block)
    if num_blocks >= per_context:
        return num_blocks, wanted_len
    held_len = num_blocks * block_size
    if max_model_len is not None or held_len < 1:
        raise EngineError(
            f"One context of {wanted_len} tokens takes {per_context} blocks of the key/value cache "
            f"({_mib(per_context * bytes_per_block)}), but there are {num_blocks} "
            f"({_mib(num_blocks * bytes_per_block)})",
            hint="Lower max_model_len, or raise num_blocks or kv_cache_memory_bytes.",
        )
    _log.warning("The context is limited to %d of %d tokens by memory for the key/value cache", held_len, context_len)
    return num_blocks, held_len


def allocate(
    specs: Iterable[KVCacheSpec], num_blocks: int, block_size: int, make: Allocate = host_zeros
) -> list[tuple[Array, ...]]:
    """Allocates the cache of each layer, in memory of the host or of the device that `make` allocates on."""
    return [tuple(make(each.shape(num_blocks, block_size), each.dtype) for each in spec.tensors) for spec in specs]


class PagedCache:
    """The cache of a model: its layout, its memory, and who owns its blocks.

    The options are those of `plan_cache`.

    Attributes:
        num_blocks: Number of blocks.
        max_model_len: Longest context that they hold, in tokens.
        caches: The tensors of each layer.
        blocks: Owners of the blocks.
        others: The first keys of each cache that `another` made, by their `id`.
    """

    def __init__(self, model: CausalLM, block_size: int, **options: Any) -> None:
        specs = model.kv_cache_specs
        bytes_per_block = block_size * sum(spec.bytes_per_token for spec in specs)
        available = model.backend.available_memory()
        if available is not None:
            available = max(0, available - model.mapped_bytes)
        self.num_blocks, self.max_model_len = plan_cache(bytes_per_block, block_size, available=available, **options)
        self._allocate = functools.partial(allocate, specs, block_size=block_size, make=model.backend.allocate)
        self.caches = self._allocate(self.num_blocks)
        self.blocks = BlockManager(self.num_blocks, block_size)
        self.others: WeakValueDictionary[int, Any] = WeakValueDictionary()

    @functools.cached_property
    def tensors(self) -> list[tuple[torch.Tensor, ...]]:
        """The caches as torch tensors, which share the memory."""
        return as_tensors(self.caches)

    def another(self, num_blocks: int, convert: Callable[..., Any] = list) -> list[tuple[Any, ...]]:
        """Allocates caches of `num_blocks` blocks with the same layout, as `convert` makes them of arrays."""
        made: list[tuple[Any, ...]] = convert(self._allocate(num_blocks))
        self.others[id(made[0][0])] = made[0][0]
        return made

    def clear(self) -> None:
        """Frees the memory: clears the lists themselves, which others hold too."""
        self.caches.clear()
        self.__dict__.get("tensors", []).clear()


def as_tensors(caches: list[tuple[Array, ...]]) -> list[tuple[torch.Tensor, ...]]:
    """Returns the caches of each layer as torch tensors, which share the memory."""
    return [tuple(map(to_torch, layer)) for layer in caches]


def _mib(nbytes: int) -> str:
    return f"{nbytes / 2**20:,.0f} MiB"
