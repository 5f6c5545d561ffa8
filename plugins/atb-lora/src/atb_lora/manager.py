# SPDX-License-Identifier: Apache-2.0
"""The adapters of one model that are loaded, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atb_core.errors import RequestError
from atb_core.features.adapters import BASE_NAMES
from atb_core.files import user_path
from atb_core.graph.arrays import HostArray, to_numpy
from atb_lora.adapter import Adapter, Part, read_adapter
from atb_lora.config import LoraConfig
from atb_lora.decorators import MultiLoraDecorator, SingleLoraDecorator
from atb_lora.slots import AdapterSlots, Tensors

if TYPE_CHECKING:
    from atb_core.checkpoint.base import Checkpoint

_MAX_NAME = 256


class LoraManager(AdapterSlots):
    """Loads and unloads the adapters of one model.

    A loaded adapter stays in host memory. Loading and unloading change nothing for requests that have begun: they keep
    their version until they end.

    Args:
        model: a `CausalLM`.
        max_loras: number of slots, the most adapters in one step.
        max_lora_rank: the largest rank of a matrix.
        checkpoint: of the model, read for adapters that replace biases.
    """

    features = (SingleLoraDecorator, MultiLoraDecorator)

    def __init__(
        self,
        model: Any,
        max_loras: int = 8,
        max_lora_rank: int = 64,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        super().__init__(model, max_loras, max_lora_rank)
        self._checkpoint = checkpoint

    def load(self, name: str, path: str | Path, *, replace: bool = False) -> Adapter:
        """Reads an adapter and lets requests name it.

        Args:
            name: 1 to 256 characters, not "base".
            path: PEFT's directory.
            replace: accepts a name that is taken; new requests get the new adapter.

        Raises:
            RequestError: the name is taken or none.
            ConfigError, WeightsError: the adapter is damaged, is not supported, or does not fit the model.
        """
        if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME or name in BASE_NAMES or not name.isprintable():
            raise RequestError(f"an adapter cannot be called {name!r:.300}", hint="Give a name of 1 to 256 characters.")
        if name in self.adapters and not replace:
            raise RequestError(
                f"an adapter {name!r} is loaded already", hint="Unload it first, or load with replace=True."
            )
        base = None if self._checkpoint is None else self._base_tensors
        adapter = read_adapter(name, user_path(str(path)), self.targets, self.max_lora_rank, base)
        self.adapters[name] = adapter
        return adapter

    def unload(self, name: str) -> None:
        """Forgets an adapter; RequestError if there is none. Requests that run with it end as they would."""
        self.find(name)
        del self.adapters[name]

    def share(self, adapter: Adapter, rank: int) -> Tensors:
        """Returns the matrices that process `rank`, above 0, has of an adapter, by their numbers and what they are."""
        parts = adapter.others[rank - 1].items()
        named = [(f"{number}.{what}", getattr(part, what)) for number, part in parts for what in ("a", "b", "bias")]
        return {name: tensor for name, tensor in named if tensor is not None}

    def take(self, share: Tensors) -> Adapter:
        """Returns an adapter of what `share` returned in the first process."""
        numbers = sorted({int(name.partition(".")[0]) for name in share})
        parts = {n: Part(share[f"{n}.a"], share[f"{n}.b"], share.get(f"{n}.bias")) for n in numbers}
        return Adapter("of another process", Path(), LoraConfig(), parts)

    def _base_tensors(self, names: Sequence[str]) -> Mapping[str, HostArray]:
        assert self._checkpoint is not None
        with self._checkpoint.weights(self.dtype) as loader:
            return {name: to_numpy(loader.get(name)) for name in names}
