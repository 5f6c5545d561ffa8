# SPDX-License-Identifier: Apache-2.0
"""The memory of adapters that networks read: slots for those of recent steps, or the matrices of a single one."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from atb_core.errors import RequestError
from atb_core.features.adapters import BASE_NAMES, AdapterManager
from atb_core.graph.arrays import HostArray, numpy_dtype
from atb_core.graph.custom_ops import supports
from atb_core.graph.ops.lora import Lora
from atb_core.layers.linear import BaseLinear
from atb_lora.adapter import Adapter, Target

Tensors = Mapping[str, HostArray]


class AdapterSlots(AdapterManager):
    """Places the adapters of one model.

    A step copies those it needs into slots, of which there are `max_loras`; the adapter that no step has used for
    longest makes room.

    Args:
        model: a `CausalLM`.
        max_loras: number of slots, the most adapters in one step.
        max_lora_rank: the largest rank of a matrix.

    Attributes:
        adapters: the loaded adapters by name.
        is_grouped: true if the sequences of a step may have different adapters.
        num_placed: number of times that an adapter was copied into a slot.
    """

    def __init__(self, model: Any, max_loras: int, max_lora_rank: int) -> None:
        super().__init__(model, max_loras, max_lora_rank)
        self.backend, self.dtype = model.backend, model.dtype
        self.is_grouped = supports(Lora, self.backend.name)
        self.adapters: dict[str, Adapter] = {}
        self.num_placed = 0
        # The model has its manager: without a cycle it is freed when nobody refers to it.
        self._model = weakref.ref(model)
        # Slots by the versions of adapters, the one that was used last at the end.
        self._slots: OrderedDict[int, int] = OrderedDict()
        self._separate: tuple[int, Tensors] = (0, {})

    def find(self, given: str | Adapter | None) -> Adapter | None:
        """Returns the adapter of a name, `None` for the model without one; RequestError for an unknown name."""
        if given in BASE_NAMES or isinstance(given, Adapter):
            return given if isinstance(given, Adapter) else None
        adapter = self.adapters.get(given) if isinstance(given, str) else None
        if adapter is None:
            raise RequestError(
                f"there is no adapter {given!r:.300}",
                hint=f"Loaded: {', '.join(sorted(self.adapters)) or 'none'}. ModelRunner.load_adapter loads one.",
            )
        return adapter

    @cached_property
    def targets(self) -> list[Target]:
        """Returns the linear layers that adapters can have matrices for: all but the output matrix."""
        targets, first = [], 0
        model = self._model()
        assert model is not None
        group = model.mindie_llm_config.mapping.group
        for module in model.modules():
            if isinstance(module, BaseLinear) and module is not getattr(model, "lm_head", None):
                targets.append(Target(module, first, () if group is None else group.shares(module.prefix)))
                first += len(module.out_sizes)
        return targets

    @cached_property
    def target_of(self) -> dict[int, Target]:
        """Returns the targets by the identity of their layers."""
        return {id(target.linear): target for target in self.targets}

    @property
    def num_matrices(self) -> int:
        """Returns the number of matrices of all targets."""
        return self.targets[-1].first + len(self.targets[-1].sizes) if self.targets else 0

    def place(self, adapters: Iterable[Adapter]) -> dict[int, int]:
        """Returns the slots of the adapters of a step, by version, after copying those that have none.

        Raises:
            RequestError: they are more than there are slots.
        """
        wanted = {adapter.version: adapter for adapter in adapters}
        if len(wanted) > self.max_loras:
            raise RequestError(
                f"a step has {len(wanted)} different adapters; there are {self.max_loras} slots",
                hint=f"Open the model with max_loras={len(wanted)}.",
            )
        for version in wanted:
            if version in self._slots:
                self._slots.move_to_end(version)
        for version, adapter in wanted.items():
            if version not in self._slots:
                slot = self._free_slot(wanted)
                self._copy(adapter, slot)
                self._slots[version] = slot
        return {version: self._slots[version] for version in wanted}

    def _free_slot(self, wanted: Collection[int]) -> int:
        if len(self._slots) < self.max_loras:
            return len(self._slots)
        return self._slots.pop(next(version for version in self._slots if version not in wanted))

    def _copy(self, adapter: Adapter, slot: int) -> None:
        ranks = self.stacks["lora_ranks"]
        ranks[slot] = 0
        for target in self.targets:
            a, b, bias = (self.stacks[target.input_name(what)][slot] for what in ("a", "b", "bias"))
            end = 0
            for part, size in enumerate(target.sizes):
                begin, end = end, end + size
                own = adapter.parts.get(target.first + part)
                if own is None:
                    continue
                row = part * self.max_lora_rank
                a[row : row + own.rank] = own.a
                b[: own.rank, begin:end] = own.b
                bias[begin:end] = 0 if own.bias is None else own.bias
                ranks[slot, target.first + part] = own.rank
        self.num_placed += 1

    @cached_property
    def stacks(self) -> dict[str, HostArray]:
        """Returns the matrices of all slots, by the names of inputs; memory is used as slots are.

        Of each target a `[max_loras, parts * max_lora_rank, k]`, b `[max_loras, max_lora_rank, n]` and bias
        `[max_loras, n]`, and `lora_ranks`, int32 `[max_loras, num_matrices]`.
        """
        dtype, rank = self.dtype, self.max_lora_rank
        tensors = {"lora_ranks": np.zeros((self.max_loras, self.num_matrices), np.int32)}
        for target in self.targets:
            n = sum(target.sizes)
            shapes = {"a": (len(target.sizes) * rank, target.k), "b": (rank, n), "bias": (n,)}
            for what, shape in shapes.items():
                tensors[target.input_name(what)] = self.backend.allocate((self.max_loras, *shape), dtype)
        return tensors

    def separate(self, adapter: Adapter) -> Tensors:
        """Returns the matrices of one adapter for backends without grouped products; the last ones are kept.

        Of each target a `[parts * r, k]` and b `[parts * r, n]`, zero where the part of the row is not that of the
        column, and bias `[n]`; r is the largest rank of the adapter.
        """
        if self._separate[0] != adapter.version:
            tensors = {}
            for target in self.targets:
                for what, tensor in zip(("a", "b", "bias"), self._blocks(adapter, target), strict=True):
                    tensors[target.input_name(what)] = tensor
            self._separate = (adapter.version, tensors)
        return self._separate[1]

    def _blocks(self, adapter: Adapter, target: Target) -> tuple[HostArray, ...]:
        dtype, rank, n, end = numpy_dtype(self.dtype), max(adapter.rank, 1), sum(target.sizes), 0
        rows = rank * len(target.sizes)
        a, b, bias = (np.zeros(shape, dtype) for shape in ((rows, target.k), (rows, n), (n,)))
        for part, size in enumerate(target.sizes):
            begin, end = end, end + size
            own = adapter.parts.get(target.first + part)
            if own is not None:
                row = part * rank
                a[row : row + own.rank] = own.a
                b[row : row + own.rank, begin:end] = own.b
                bias[begin:end] = 0 if own.bias is None else own.bias
        return a, b, bias
