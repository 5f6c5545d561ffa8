# SPDX-License-Identifier: Apache-2.0
"""The features by which models run with adapters: one for a whole step, or several."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from atb_core.errors import RequestError
from atb_core.features.adapters import BASE_NAMES
from atb_core.features.base import BASE_FEATURES, Arrays, FeatureDecorator
from atb_core.graph.arrays import Array, to_numpy
from atb_core.graph.dim import Dim
from atb_core.graph.dtype import DataType
from atb_core.graph.tensor import Tensor
from atb_core.layers.linear.adapters import linear_hook
from atb_core.nn.functional import linear, lora

if TYPE_CHECKING:
    from atb_core.features.step import Step
    from atb_core.layers.linear import BaseLinear
    from atb_lora.adapter import Adapter
    from atb_lora.slots import AdapterSlots

__all__ = ["MultiLoraDecorator", "SingleLoraDecorator"]

_REASON = "a step has one adapter for all of its sequences, or several"


class LoraDecorator(FeatureDecorator):
    """Adds the products of adapters to the results of linear layers."""

    feature_stackable_whitelist = (*BASE_FEATURES, "hidden_states")
    is_enabled = True
    takes_adapters = True

    @property
    def manager(self) -> AdapterSlots:
        """Returns the adapters of the model."""
        manager: AdapterSlots = self.model.lora
        return manager

    def recording(self) -> AbstractContextManager[None]:
        """Adds to the linear layers that are recorded."""
        return linear_hook(self._grouped if self.manager.is_grouped else self._composed)

    def constants(self, meta: Step) -> Mapping[str, Array]:
        """Returns the matrices of all slots, or of the only adapter."""
        if self.manager.is_grouped:
            return self.manager.stacks
        (adapter,) = self._adapters(meta)[:1]
        assert adapter is not None
        return self.manager.separate(adapter)

    def _slots(self) -> Tensor:
        raise NotImplementedError

    def _adapters(self, meta: Step) -> list[Adapter | None]:
        ids = meta.adapter_ids or ()
        count = len(meta.input_ids) if meta.input_lengths is None else len(meta.input_lengths)
        if len(ids) != count:
            raise RequestError(f"adapter_ids has {len(ids)} entries for {count} sequences")
        return [self.manager.find(each) for each in ids]

    def _grouped(self, layer: BaseLinear, x: Tensor, y: Tensor) -> Tensor:
        manager = self.manager
        target = manager.target_of.get(id(layer))
        if target is None:
            return y
        count, rank, n, dtype = manager.max_loras, manager.max_lora_rank, sum(target.sizes), manager.dtype
        a = Tensor(target.input_name("a"), (count, len(target.sizes) * rank, target.k), dtype)
        b = Tensor(target.input_name("b"), (count, rank, n), dtype)
        bias = Tensor(target.input_name("bias"), (count, n), dtype)
        ranks = Tensor("lora_ranks", (count, manager.num_matrices), DataType.INT32)
        return lora(y, x, a, b, bias, self._slots(), ranks, target.sizes, target.first)

    def _composed(self, layer: BaseLinear, x: Tensor, y: Tensor) -> Tensor:
        target = self.manager.target_of.get(id(layer))
        if target is None:
            return y
        rows, n, dtype = Dim("lora_rank") * len(target.sizes), sum(target.sizes), self.manager.dtype
        a = Tensor(target.input_name("a"), (rows, target.k), dtype)
        b = Tensor(target.input_name("b"), (rows, n), dtype)
        bias = Tensor(target.input_name("bias"), (n,), dtype)
        return y + linear(linear(x, a), b, bias, False, False)


class SingleLoraDecorator(LoraDecorator):
    """One adapter for all sequences of a step."""

    feature_name = "single_lora"
    feature_conflicts: ClassVar = {"multi_lora": _REASON}

    def is_activated(self, meta: Step) -> bool:
        """Returns true if all sequences name the same adapter."""
        chosen = _chosen(meta.adapter_ids)
        return len(chosen) == 1 and None not in chosen

    def modify_inputs(self, inputs: Arrays, outputs: Arrays, runtime_params: Arrays, meta: Step) -> None:
        """Adds the adapter's slot."""
        (adapter,) = self._adapters(meta)[:1]
        if self.manager.is_grouped and adapter is not None:
            (slot,) = self.manager.place([adapter]).values()
            inputs["lora_slots"] = np.array([slot], np.int32)

    def _slots(self) -> Tensor:
        return Tensor("lora_slots", (1,), DataType.INT32)


class MultiLoraDecorator(LoraDecorator):
    """Different adapters for the sequences of a step, or none for some of them."""

    feature_name = "multi_lora"
    feature_conflicts: ClassVar = {"single_lora": _REASON}

    def is_activated(self, meta: Step) -> bool:
        """Returns true if an adapter is named, but not the same one for all."""
        return len(_chosen(meta.adapter_ids)) > 1

    def stacking_problem(self, features: Collection[str]) -> str | None:
        """Returns the reason on backends without grouped products, too."""
        if self.manager.is_grouped:
            return super().stacking_problem(features)
        return (
            f"the backend {self.manager.backend.name!r} has no grouped products: the sequences of a step have the same "
            "adapter there, or none"
        )

    def modify_inputs(self, inputs: Arrays, outputs: Arrays, runtime_params: Arrays, meta: Step) -> None:
        """Adds the slot of each token."""
        adapters = self._adapters(meta)
        slots = self.manager.place(each for each in adapters if each is not None)
        of_sequences = np.array([-1 if each is None else slots[each.version] for each in adapters], np.int32)
        lengths = meta.input_lengths if meta.is_prefill else meta.q_lens
        if lengths is not None:
            of_sequences = np.repeat(of_sequences, to_numpy(lengths))
        inputs["lora_slots"] = of_sequences

    def _slots(self) -> Tensor:
        return Tensor("lora_slots", (Dim("tokens"),), DataType.INT32)


def _chosen(adapter_ids: Sequence[object] | None) -> set[object]:
    """Returns the adapters of a step, `None` for sequences without; nothing if there is none at all."""
    if adapter_ids is None:
        return set()
    chosen = {None if each in BASE_NAMES else each for each in adapter_ids}
    return set() if chosen == {None} else chosen
