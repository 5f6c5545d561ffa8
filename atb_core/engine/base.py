# SPDX-License-Identifier: Apache-2.0
"""Interface of engines and backends, and the checks that engines share."""

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
    """Runs one network; weights and KV caches are bound once, inputs and outputs are passed to every call."""

    network: Network

    @abstractmethod
    def set_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Sets some or all of the weights, by name.

        The engine keeps them in its own layout, so the caller may release the tensors afterwards.

        Raises:
            EngineError: a name is no weight of the network, or a shape or dtype is wrong.
        """

    @abstractmethod
    def set_weight_part(self, name: str, begin: int, value: torch.Tensor) -> None:
        """Sets rows `begin` to `begin + len(value) - 1` of a weight of known shape, e.g. the experts of an MoE layer.

        Parts are set in ascending order without gaps; one that begins at 0 starts again. The weight is set when its
        last part is.

        Raises:
            EngineError: the part does not fit, is not the next one, or the weight is the matrix of a Linear, which
                must be set as a whole.
        """

    @abstractmethod
    def set_kv_caches(self, caches: Mapping[str, torch.Tensor]) -> None:
        """Binds inputs whose memory is the same in all calls and is written in place."""

    @abstractmethod
    def set_constants(self, inputs: Mapping[str, torch.Tensor]) -> None:
        """Binds inputs that have the same values in all calls until they are set again: tables, masks.

        An engine may copy them, so later changes of the tensors need not take effect.
        """

    @abstractmethod
    def forward(
        self,
        inputs: Mapping[str, torch.Tensor],
        outputs: Mapping[str, torch.Tensor] | None = None,
        runtime_params: Mapping[str, torch.Tensor] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Runs the network and returns all outputs.

        Args:
            inputs: every input that is not bound, by name.
            outputs: tensors to write into; missing ones are allocated.
            runtime_params: copies of inputs in host memory, for backends that need some (sequence lengths on Ascend).

        Raises:
            EngineError: before anything runs, for missing or unknown names, wrong dtypes, shapes or devices, and
                tensors that are not contiguous.
        """

    def __str__(self) -> str:
        return f"{type(self).__name__} of\n{self.network}"


class Backend(ABC):
    """Makes engines; engines that share a weight store hold each weight once."""

    name: str
    #: True if a Linear can return float32 for inputs of a narrower type; models then have float32 logits.
    float32_logits: bool = True

    @property
    def token_multiple(self) -> int:
        """Returns the number that the tokens of a prefill must be a multiple of; models pad to it."""
        return 1

    # Most backends take every model.
    def check_model(self, dtype: DataType, head_dim: int) -> None:  # noqa: B027
        """Raises BackendUnavailableError if models of this element type or head size cannot run."""

    def allocate(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Allocates memory that engines of this backend write in place, e.g. a KV cache; its values are undefined."""
        return host_zeros(shape, dtype)

    def available_memory(self) -> int | None:
        """Returns the bytes that can still be allocated, `None` if that is unknown."""
        return available_memory()

    @abstractmethod
    def new_store(self) -> Any:
        """Returns an empty weight store."""

    @abstractmethod
    def build(self, network: Network, store: Any = None) -> Engine:
        """Returns an engine of `network` with its weights in `store`, by default a new one."""


def distinct(outputs: Mapping[str, torch.Tensor] | None, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns the outputs without those that are inputs under the same name, which are written in place."""
    return {name: value for name, value in (outputs or {}).items() if inputs.get(name) is not value}


def check_names(what: str, given: Collection[str], wanted: Collection[str], optional: bool = False) -> None:
    """Raises EngineError unless the given names are the wanted ones, or some of them if `optional`."""
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
    """Returns the element type of `real`; raises EngineError unless it is a dense, contiguous tensor on `device`."""
    if not isinstance(real, torch.Tensor):
        raise EngineError(f"{what} must be a torch.Tensor, not {type(real).__name__}")
    try:
        dtype = dtype_from_torch(real.dtype)
    except TypeError as error:
        raise EngineError(f"{what}: {error}") from None
    if real.layout is not torch.strided:
        raise EngineError(f"{what} is sparse ({real.layout})", hint="Pass tensor.to_dense().")
    if contiguous and not real.is_contiguous():
        raise EngineError(f"{what} is not contiguous", hint="Pass tensor.contiguous().")
    if device is not None and real.device.type != device:
        raise EngineError(f"{what} is on {real.device}, the engine runs on {device}")
    return dtype


def check_tensor(what: str, declared: Tensor, real: torch.Tensor, device: str | None = None) -> None:
    """Raises EngineError unless `real` is contiguous, on `device`, and has the declared dtype and fixed sizes."""
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


def check_some(
    what: str, network: Network, values: Mapping[str, torch.Tensor], wanted: Collection[str], device: str | None = None
) -> None:
    """Raises EngineError unless `values` are some of the `wanted` inputs and fit their declarations."""
    check_names(f"{what}s", values, wanted, optional=True)
    for name, value in values.items():
        check_tensor(what, network.input(name), value, device)


def check_part(
    network: Network, name: str, begin: int, part: torch.Tensor, device: str | None = None
) -> tuple[int, ...]:
    """Returns the shape of weight `name`; raises EngineError unless `part` fits into it from row `begin` on."""
    check_names("weights", [name], network.weights_keys, optional=True)
    weight = network.input(name)
    if not weight.shape:
        raise EngineError(f"weight {name!r} has no declared shape to set parts of", hint="Use set_weights().")
    shape = tuple(int(size) for size in weight.shape)  # type: ignore[arg-type]
    check_tensor("a part of weight", Tensor(name, (*part.shape[:1], *shape[1:]), weight.dtype), part, device)
    if begin < 0 or len(part) < 1 or begin + len(part) > shape[0]:
        raise EngineError(f"rows {begin} to {begin + len(part)} are no part of weight {weight}")
    return shape
