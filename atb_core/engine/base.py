# SPDX-License-Identifier: Apache-2.0
"""The one interface of all engines, and the checks that they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any

import torch

from atb_core.engine.host_memory import available_memory, host_zeros
from atb_core.errors import EngineError
from atb_core.graph.dim import Dim
from atb_core.graph.dtype import DataType
from atb_core.graph.network import Network
from atb_core.graph.tensor import Tensor
from atb_core.graph.torch_dtypes import dtype_from_torch


class Engine(ABC):
    """Runs one network. Weights and KV caches are bound once, inputs and outputs come with every call."""

    network: Network

    @abstractmethod
    def set_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Takes over weights by name; may be called with a part of them at a time.

        The engine keeps what it needs in its own layout: the caller may drop the tensors afterwards.
        EngineError for a name that is no weight of the network, a wrong shape or dtype.
        """

    @abstractmethod
    def set_weight_part(self, name: str, begin: int, value: torch.Tensor) -> None:
        """Takes over the part `begin`, ..., `begin + len(value) - 1` along dimension 0 of a weight of known shape.

        A large weight then never has to be in one piece. Parts come in ascending order without gaps; one that
        begins at 0 starts anew, and the weight is set when the last part is. EngineError for a part that does not
        fit, is not the next one, or belongs to the matrix of a Linear, which is set as a whole.
        """

    @abstractmethod
    def set_kv_caches(self, caches: Mapping[str, torch.Tensor]) -> None:
        """Binds inputs whose memory stays the same from call to call and is written in place."""

    @abstractmethod
    def set_constants(self, inputs: Mapping[str, torch.Tensor]) -> None:
        """Binds inputs that keep their values from call to call until they are set again: tables, masks.

        An engine with memory of its own copies them once, so a change of their contents may go unseen.
        """

    @abstractmethod
    def forward(
        self,
        inputs: Mapping[str, torch.Tensor],
        outputs: Mapping[str, torch.Tensor] | None = None,
        runtime_params: Mapping[str, torch.Tensor] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Runs the network into `outputs` and returns them; outputs not given are allocated.

        `runtime_params` holds host copies of inputs for backends that need them (sequence lengths on
        Ascend); the others read the inputs. EngineError, before anything runs, for missing or unknown
        names, wrong dtypes, shapes or devices, and tensors that are not contiguous.
        """

    def __str__(self) -> str:
        return f"{type(self).__name__} of\n{self.network}"


class Backend(ABC):
    """Makes engines. All engines of one model share a weight store, so a weight exists once."""

    name: str
    #: Whether a Linear can give float32 for inputs of a narrower type; models then have float32 logits.
    float32_logits: bool = True

    @property
    def token_multiple(self) -> int:
        """What the number of tokens of a prefill has to be a multiple of; models fill up."""
        return 1

    # Most backends take every model.
    def check_model(self, dtype: DataType, head_dim: int) -> None:  # noqa: B027
        """BackendUnavailableError when models of this element type or size of heads cannot run, and why."""

    def allocate(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Memory that engines of this backend write in place: a KV cache. Not yet written parts have any value."""
        return host_zeros(shape, dtype)

    def available_memory(self) -> int | None:
        """Bytes that may still be allocated; None if that is not known."""
        return available_memory()

    @abstractmethod
    def new_store(self) -> Any:
        """An empty store for weights."""

    @abstractmethod
    def build(self, network: Network, store: Any = None) -> Engine:
        """An engine for `network` with its weights in `store` (a new one if None)."""


def check_names(what: str, given: Collection[str], wanted: Collection[str], optional: bool = False) -> None:
    """EngineError unless the names given are those wanted (or some of them)."""
    unknown = sorted(set(given) - set(wanted))
    missing = [] if optional else sorted(set(wanted) - set(given))
    if unknown or missing:
        parts = [f"missing: {', '.join(missing)}"] if missing else []
        parts += [f"unknown: {', '.join(unknown)}"] if unknown else []
        raise EngineError(
            f"the {what} do not fit the network; {'; '.join(parts)}",
            hint=f"{what} of this network: {', '.join(sorted(wanted)) or 'none'}",
        )


def check_real(what: str, real: torch.Tensor, device: str | None = None, contiguous: bool = True) -> DataType:
    """The element type of `real`; EngineError unless it is a dense, contiguous torch.Tensor (on `device`)."""
    if not isinstance(real, torch.Tensor):
        raise EngineError(f"{what} must be a torch.Tensor, not {type(real).__name__}")
    try:
        dtype = dtype_from_torch(real.dtype)
    except TypeError as error:
        raise EngineError(f"{what}: {error}") from None
    if real.layout is not torch.strided:
        raise EngineError(f"{what} is sparse ({real.layout})", hint="pass tensor.to_dense()")
    if contiguous and not real.is_contiguous():
        raise EngineError(f"{what} is not contiguous", hint="pass tensor.contiguous()")
    if device is not None and real.device.type != device:
        raise EngineError(f"{what} is on {real.device}, the engine runs on {device}")
    return dtype


def check_tensor(what: str, declared: Tensor, real: torch.Tensor, device: str | None = None) -> None:
    """EngineError unless `real` is a tensor of the declared dtype and fixed sizes, contiguous (on `device`)."""
    dtype = check_real(f"{what} {declared.name!r}", real, contiguous=False)
    if declared.dtype is not None and dtype is not declared.dtype:
        raise EngineError(f"{what} {declared.name!r} must be {declared.dtype.short}, not {real.dtype}")
    if declared.shape is not None:
        fits = len(declared.shape) == real.dim() and all(
            isinstance(size, Dim) or size == value for size, value in zip(declared.shape, real.shape, strict=True)
        )
        if not fits:
            raise EngineError(f"{what} {declared} was given a tensor of shape {list(real.shape)}")
    check_real(f"{what} {declared.name!r}", real, device)


def check_part(
    network: Network, name: str, begin: int, part: torch.Tensor, device: str | None = None
) -> tuple[int, ...]:
    """The shape of weight `name`; EngineError unless it is known and `part` fits into it from row `begin` on."""
    check_names("weights", [name], network.weights_keys, optional=True)
    weight = network.input(name)
    if not weight.shape:
        raise EngineError(
            f"weight {name!r} cannot be set in parts: its shape is not declared", hint="use set_weights()"
        )
    shape = tuple(int(size) for size in weight.shape)  # type: ignore[arg-type]
    check_tensor("a part of weight", Tensor(name, (*part.shape[:1], *shape[1:]), weight.dtype), part, device)
    if begin < 0 or len(part) < 1 or begin + len(part) > shape[0]:
        raise EngineError(f"rows {begin} to {begin + len(part)} are no part of weight {weight}")
    return shape
