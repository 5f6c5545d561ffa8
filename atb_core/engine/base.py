# SPDX-License-Identifier: Apache-2.0
"""Interface of engines and backends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from atb_core.engine.checks import check_dtype
from atb_core.engine.host_memory import available_memory, host_zeros
from atb_core.errors import EngineError
from atb_core.graph.arrays import Array, to_torch
from atb_core.graph.dtype import DataType
from atb_core.graph.network import Network
from atb_core.graph.quantized import QuantizedRows

__all__ = ["Backend", "Engine", "RunTimes", "SlicedRun"]


class RunTimes(NamedTuple):
    """Holds the times of the nodes of one run, in nanoseconds of `time.perf_counter_ns`.

    Attributes:
        network: what ran; its shapes are known, except for symbolic sizes.
        begin: when the run began.
        end: when it ended.
        steps: index of the node of each step in `network.nodes`, in the order of execution; -1 for a copy into an
            output.
        threads: for each thread, begin and end of its part of every step, one step after another; zeros where it had
            no part. Until the first thread begins the next step, it waits for the others.
        clock: the device whose events gave the times, as the only thread; "" if threads of the engine gave them.
    """

    network: Network
    begin: int
    end: int
    steps: Sequence[int]
    threads: Sequence[Sequence[int]]
    clock: str = ""


class SlicedRun(Protocol):
    """A run of a network in slices of time, between which this and other networks may run."""

    def advance(self, seconds: float) -> dict[str, Any] | None:
        """Goes on for about so long, for one node at least; returns all outputs once the run has ended.

        Raises:
            EngineError: weights were set since the run began.
        """


class Engine(ABC):
    """Runs one network; weights and KV caches are bound once, inputs and outputs are passed to every call.

    All values are arrays of numpy (bfloat16 as `ml_dtypes.bfloat16`) or torch tensors, also some of each.
    """

    network: Network
    #: True if the engine can tell when its nodes run.
    records_nodes: bool = False
    #: True if the engine has `start`.
    slices_runs: bool = False

    @abstractmethod
    def set_weights(self, weights: Mapping[str, Array]) -> None:
        """Sets some or all of the weights, by name.

        The engine keeps them in its own layout, so the caller may release the tensors afterwards.

        Raises:
            EngineError: a name is no weight of the network, or a shape or dtype is wrong.
        """

    @abstractmethod
    def set_weight_part(self, name: str, begin: int, value: Array) -> None:
        """Sets rows `begin` to `begin + len(value) - 1` of a weight of known shape, e.g. the experts of an MoE layer.

        Parts are set in ascending order without gaps; one that begins at 0 starts again. The weight is set when its
        last part is.

        Raises:
            EngineError: the part does not fit, is not the next one, or the weight is the matrix of a Linear, which
                must be set as a whole.
        """

    def quantize_weight(self, name: str, value: Array, quantization: str) -> None:
        """Sets a weight, stored in one of the backend's `quantizations`.

        Raises:
            EngineError: as for `set_weights`; the engine has no such format, or needs the weight as it is.
        """
        raise EngineError(f"weight {name!r}: {type(self).__name__} does not store weights as {quantization}")

    def set_weight_blocks(self, name: str, parts: Sequence[QuantizedRows]) -> None:
        """Sets a weight from its rows, in pieces one below the other, in the backend's `block_formats`.

        Raises:
            EngineError: the pieces do not fit the weight, or the engine cannot store it so.
        """
        raise EngineError(f"weight {name!r}: {type(self).__name__} does not store weights as {parts[0].format}")

    @abstractmethod
    def set_kv_caches(self, caches: Mapping[str, Array]) -> None:
        """Binds inputs whose memory is the same in all calls and is written in place."""

    @abstractmethod
    def set_constants(self, inputs: Mapping[str, Array]) -> None:
        """Binds inputs that have the same values in all calls until they are set again: tables, masks.

        The engine reads their memory in every call; one whose backend has `copies_constants` copies them.
        """

    @abstractmethod
    def forward(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array] | None = None,
        runtime_params: Mapping[str, Array] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Runs the network and returns all outputs.

        Args:
            inputs: every input that is not bound, by name; any array in host memory with `__dlpack__`.
            outputs: arrays to write into; missing ones are allocated, as torch tensors if an input is one, else as
                arrays of numpy.
            runtime_params: copies of inputs in host memory, for backends that need some (sequence lengths on Ascend).

        Raises:
            EngineError: before anything runs, for missing or unknown names, wrong dtypes, shapes or devices, and
                tensors that are not contiguous.
        """

    def start(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array] | None = None) -> SlicedRun:
        """Begins a run in slices, with arguments of `forward`, whose values must not change before it ends.

        Raises:
            EngineError: as `forward`; or the engine has no such runs.
        """
        raise EngineError(f"a {type(self).__name__} has no runs in slices")

    def set_recording(self, on: bool) -> None:
        """Starts or stops to keep the times of nodes, and drops those that were kept.

        Raises:
            EngineError: the engine cannot tell when its nodes run, or its device has no room for that.
        """
        raise EngineError(f"a {type(self).__name__} cannot tell when its nodes run")

    def take_runs(self) -> list[RunTimes]:
        """Returns, and forgets, the times of the latest runs since recording began."""
        return []

    def __str__(self) -> str:
        return f"{type(self).__name__} of\n{self.network}"


class Backend(ABC):
    """Makes engines; engines that share a weight store hold each weight once."""

    name: str
    #: True if a Linear can return float32 for inputs of a narrower type; models then have float32 logits.
    float32_logits: bool = True

    #: Formats to which the engines can quantise a weight, and formats of files that they store as they are.
    quantizations: frozenset[str] = frozenset()
    block_formats: frozenset[str] = frozenset()

    #: True if attention of several new tokens to the cache needs a mask as an input; models then make it of each step.
    masks_new_tokens: bool = False

    #: True if engines copy what `set_weights` and `set_weight_part` give them.
    copies_weights: bool = False

    #: True if attention is faster on a cache in an order of the engine's own, see `ReshapeAndCache`.
    packs_caches: bool = False

    #: Name of the layouts of packed weights that stores `save` and `load`; `None` if they cannot.
    packed_layout: str | None = None

    #: True if engines copy what `set_constants` gives them, so that later changes of it have no effect.
    copies_constants: bool = False

    def block_size(self, head_dim: int) -> int:
        """Returns the tokens in a block of the paged cache that suit heads of `head_dim` elements."""
        return 128

    # Most backends take every model.
    def check_model(self, dtype: DataType, head_dim: int) -> None:  # noqa: B027
        """Raises BackendUnavailableError if models of this element type or head size cannot run."""

    def mixed_steps_problem(self, head_dim: int, block_size: int) -> str | None:
        """Returns why steps with `q_lens` cannot run on a cache of such blocks, `None` if they can."""
        return None

    def allocate(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Allocates memory that engines of this backend write in place, e.g. a KV cache; its values are undefined.

        Args:
            shape: sizes.
            dtype: a `DataType`, for an array of numpy where the memory is the host's, or a torch dtype, for a tensor.
        """
        array = host_zeros(shape, check_dtype("a key/value cache", dtype))
        return array if isinstance(dtype, DataType) else to_torch(array)

    def available_memory(self) -> int | None:
        """Returns the bytes that can still be allocated, `None` if that is unknown."""
        return available_memory()

    @abstractmethod
    def new_store(self) -> Any:
        """Returns an empty weight store."""

    @abstractmethod
    def build(self, network: Network, store: Any = None) -> Engine:
        """Returns an engine of `network` with its weights in `store`, by default a new one."""
