# SPDX-License-Identifier: Apache-2.0
"""Binding the KV cache to engines: once for a cache, not once for a step."""

from __future__ import annotations

from itertools import chain

import torch

from atb_core.errors import RequestError
from atb_core.features.step import KVCache
from atb_core.models.runtime.inputs import k_cache_name, v_cache_name
from atb_core.models.runtime.variants import Variant


class KVBinding:
    """The cache tensors in use; `generation` changes when a step brings others.

    Holding the tensors keeps their addresses from being reused by another cache. The addresses are compared too, for
    tensors whose storage was replaced in place.
    """

    def __init__(self, num_layers: int) -> None:
        self.num_layers = num_layers
        self.generation = 0
        self.block_size = 0
        self.slots = 0
        self._tensors: list[torch.Tensor] = []
        self._ids: list[int] = []
        self._addresses: list[int] = []

    def update(self, kv_cache: KVCache) -> None:
        """Takes the cache of a step; RequestError if it does not have one pair for each layer."""
        tensors = list(chain.from_iterable(kv_cache))
        # Maps, because this runs over every layer's tensors in every step.
        same = self.generation > 0 and list(map(id, tensors)) == self._ids
        if same and list(map(torch.Tensor.data_ptr, tensors)) == self._addresses:
            return
        if len(tensors) != 2 * self.num_layers:
            raise RequestError(
                f"the KV cache has {len(tensors)} tensors for {self.num_layers} layers", hint="Give (k, v) per layer."
            )
        if tensors[0].dim() != 4:
            raise RequestError(f"a KV cache must be [blocks, block_size, heads, size], not {list(tensors[0].shape)}")
        self._tensors = tensors
        self._ids = [id(tensor) for tensor in tensors]
        self._addresses = [tensor.data_ptr() for tensor in tensors]
        self.block_size = tensors[0].shape[1]
        self.slots = tensors[0].shape[0] * self.block_size
        self.generation += 1

    def bind(self, variant: Variant) -> None:
        """Gives the cache to the variant's engine if the engine does not have it yet."""
        if variant.kv_generation == self.generation:
            return
        names = (name(layer) for layer in range(self.num_layers) for name in (k_cache_name, v_cache_name))
        named = dict(zip(names, self._tensors, strict=True))
        variant.engine.set_kv_caches({name: named[name] for name in variant.cache_names})
        variant.kv_generation = self.generation
