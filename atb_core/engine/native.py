# SPDX-License-Identifier: Apache-2.0
"""Base classes of engines in C++: checks, binding of tensors, and programs for networks with unknown shapes.

C++ receives addresses, shapes and element types. Tensors are checked here first, and kept alive while C++ uses them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from atb_core.engine.base import Backend, Engine, RunTimes
from atb_core.engine.checks import (
    address_of,
    check_call,
    check_integer,
    check_kind,
    check_name,
    check_names,
    check_part,
    check_real,
    check_some,
    check_tensor,
    check_weights_set,
    check_written,
)
from atb_core.engine.native_graph import NativeGraph, is_complete, lower
from atb_core.errors import EngineError
from atb_core.graph.arrays import Array, dtype_of, is_tensor, numpy_dtype, to_numpy, to_torch
from atb_core.graph.dtype import DataType
from atb_core.graph.network import Network
from atb_core.graph.quantized import FileRows, QuantizedRows
from atb_core.graph.specialize import specialize
from atb_core.graph.tensor import Tensor

#: Version of the interface to the Ascend backend's extension modules, which can be installed separately; the same
#: number is in `csrc/bindings/interface.h`.
INTERFACE_VERSION = 5

#: Number of programs that are kept for a network with unknown shapes.
_MAX_PROGRAMS = 16

#: Tensors for C++ as parallel lists: numbers, addresses, shapes and, for the Ascend backend, more.
Arguments = tuple[list[Any], ...]


class NativeStore:
    """Weights of one model in C++, in the layouts that the backend's programs read, without a second copy.

    Attributes:
        backend: the backend whose programs read the weights.
        handle: the extension's WeightStore.
    """

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.handle = backend.extension.WeightStore(backend.place)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.handle.contains(name)

    @property
    def nbytes(self) -> int:
        """Returns the bytes that the weights occupy."""
        return int(self.handle.bytes)

    def set(self, name: str, value: Array) -> None:
        """Copies a weight; raises EngineError unless it is contiguous and in host memory."""
        check_name("the name of a weight", name)
        dtype = check_real(f"weight {name!r}", value, "cpu").short
        self.handle.set(name, address_of(value), dtype, list(value.shape))

    def set_part(self, name: str, begin: int, value: Array, whole: int) -> None:
        """Copies rows from `begin` on of a weight of `whole` rows, as `Engine.set_weight_part`."""
        check_name("the name of a weight", name)
        for what, row in (("first row", begin), ("number of rows", whole)):
            check_integer(f"the {what} of weight {name!r}", row, 0, 2**63 - 1)
        dtype = check_real(f"a part of weight {name!r}", value, "cpu").short
        self.handle.set_part(name, begin, address_of(value), dtype, list(value.shape), whole)

    def quantize(self, name: str, value: Array, quantization: str) -> None:
        """Packs a matrix in one of the backend's `quantizations`, as `Engine.quantize_weight`."""
        dtype = check_real(f"weight {name!r}", value, "cpu").short
        self.handle.quantize(name, quantization, address_of(value), dtype, list(value.shape))

    def set_blocks(self, name: str, parts: Sequence[QuantizedRows], dtype: DataType) -> None:
        """Packs pieces of a matrix in the backend's `block_formats`, as `Engine.set_weight_blocks`."""
        begin, whole = 0, sum(part.source.shape[0] for part in parts)
        for part in parts:
            source, (rows, row_bytes) = part.source, part.source.shape
            rest = (rows * row_bytes, rows, part.columns, dtype.short, whole)
            place = (source.offset, *rest, source.descriptor) if isinstance(source, FileRows) else None
            if place is None or not self.handle.set_blocks(name, begin, part.format, *place):
                # Reading the blocks of a file here says what is wrong with it.
                self.handle.set_blocks(name, begin, part.format, part.blocks.ctypes.data, *rest)
            begin += rows

    def save(self, descriptor: int, key: str) -> None:
        """Writes all weights as they are packed to an empty file; `key` (64 bytes at most) says what they are."""
        self.handle.save(descriptor, key)

    def load(self, descriptor: int, nbytes: int, key: str) -> bool:
        """Maps a file that `save` wrote as all declared weights; returns false if it has another key.

        Raises:
            EngineError: the file is damaged, or has other weights.
        """
        return bool(self.handle.load(descriptor, nbytes, key))

    def spec(self, name: str) -> tuple[tuple[int, ...], DataType]:
        """Returns shape and dtype of a weight that has been set."""
        info: dict[str, Any] = self.handle.info(name)
        return tuple(info["shape"]), DataType.from_short(info["dtype"])


class NativeBackend(Backend):
    """Backend of an extension module, to which tensors are passed as addresses."""

    #: The extension module, which has `WeightStore(...)` and `Model(name, param, store)`.
    extension: Any
    copies_weights = True
    #: Device type of inputs and outputs; `None` if they may be in host or device memory.
    input_device: str | None = "cpu"

    @property
    @abstractmethod
    def place(self) -> Any:
        """Returns the C++ object that the engines run on; models with the same one can share weights."""

    def new_store(self) -> NativeStore:
        return NativeStore(self)

    def input_address(self, value: Array) -> tuple[int, bool]:
        """Returns the address of an input or output, and `True` if it is in device memory."""
        return address_of(value), False

    def cache_address(self, name: str, value: Array) -> tuple[int, bool]:
        """Returns the same for a KV cache; raises EngineError if the engine cannot write it in place."""
        return address_of(value), False

    def wait_for_torch(self, values: Iterable[Array]) -> None:
        """Waits until torch has finished its queued operations on these tensors."""


class Slot(NamedTuple):
    """Input or output of a program, with its number there and its declaration."""

    name: str
    number: int
    dtype: np.dtype[Any]
    tensor: Tensor


class NativeProgram(ABC):
    """Translated network with known shapes, and the order in which its tensors are bound."""

    def __init__(self, network: Network, store: NativeStore) -> None:
        graph = lower(network)
        self.network = network
        self.handle = self.make(network, store, graph)
        inputs = [t for t in network.inputs if t.name not in network.weights_keys]
        self._all = [_slot(t, graph.ids[t]) for t in inputs]
        self.inputs = self._all
        # In the order in which the program returns the shapes of outputs.
        self.outputs = [_slot(t, graph.ids[t]) for t in sorted(network.outputs, key=graph.ids.__getitem__)]
        self._bound: dict[str, Any] = {}

    @abstractmethod
    def make(self, network: Network, store: Any, graph: NativeGraph) -> Any:
        """Returns the extension's program."""

    def arguments(
        self, what: str, slots: Sequence[Slot], values: Mapping[str, Array], host: Mapping[str, Array]
    ) -> Arguments:
        """Checks tensors and returns numbers, addresses and shapes in the order of the slots.

        The program checks the sizes. `host` holds copies of values in host memory, for the Ascend backend.
        """
        if values.keys() != {slot.name for slot in slots}:
            check_names(f"{what}s", values, [slot.name for slot in slots])
        given = [values[slot.name] for slot in slots]
        for slot, value in zip(slots, given, strict=True):
            # The full check is too slow for every call: it runs if one of its conditions does not hold.
            if not _fits(value, slot.tensor):
                check_tensor(what, slot.tensor, value, "cpu")
                if what == "output":
                    check_written(f"{what} {slot.name!r}", value)
        return [slot.number for slot in slots], [*map(address_of, given)], [value.shape for value in given]

    def bind(self, what: str, values: Mapping[str, Array]) -> None:
        """Binds inputs, of the kind `what`, for all later runs and keeps them alive."""
        self.set(what, [slot for slot in self._all if slot.name in values], values)
        self._bound.update(values)
        self.inputs = [slot for slot in self._all if slot.name not in self._bound]

    def set(self, what: str, slots: Sequence[Slot], values: Mapping[str, Array]) -> None:
        """Gives the program the addresses of bound inputs."""
        self.handle.set(*self.arguments(what, slots, values, {}))

    def forward(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array], runtime_params: Mapping[str, Array]
    ) -> dict[str, Any]:
        """Checks the tensors, runs the program and returns all outputs."""
        arguments, outputs = self.prepared(inputs, outputs, runtime_params)
        self.handle.run(*arguments)
        return dict(outputs)

    def prepared(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array], runtime_params: Mapping[str, Array]
    ) -> tuple[Arguments, Mapping[str, Array]]:
        """Checks the tensors of a call; returns them for the program, and all outputs, with those that were missing."""
        given = self.arguments("input", self.inputs, inputs, runtime_params)
        if len(outputs) < len(self.outputs):
            wanted = self.handle.output_shapes(*given)
            shapes = zip(self.outputs, wanted, strict=True)
            made = {s.name: np.empty(shape, s.dtype) for s, shape in shapes if s.name not in outputs}
            as_asked = to_torch if any(map(is_tensor, inputs.values())) else to_numpy
            outputs = {**outputs, **{name: as_asked(value) for name, value in made.items()}}
        results = self.arguments("output", self.outputs, outputs, {})
        return tuple(a + b for a, b in zip(given, results, strict=True)), outputs


def _fits(value: object, declared: Tensor) -> bool:
    """Returns true for a dense torch tensor in host memory that has the declared dtype."""
    if not is_tensor(value) or declared.dtype is None or str(value.dtype) != f"torch.{declared.dtype.short}":
        return False
    return value.is_cpu and value.is_contiguous() and not value.is_neg()


def _slot(tensor: Tensor, number: int) -> Slot:
    assert tensor.name is not None and tensor.dtype is not None
    return Slot(tensor.name, number, numpy_dtype(tensor.dtype), tensor)


class NativeEngine(Engine):
    """Runs one network in C++.

    A network with known, possibly symbolic, shapes is translated once. For other networks a program is made, and kept,
    for each combination of real shapes and dtypes.
    """

    program_type: ClassVar[type[NativeProgram]]
    #: Device type of KV caches; `None` if the program checks it.
    cache_device: str | None = "cpu"
    #: The device whose events give the times of nodes, "" where they are the engine's own.
    clock: str = ""
    records_nodes = True
    _recording = False

    def __init__(self, network: Network, store: NativeStore) -> None:
        check_kind("the network of an engine", network, Network)
        check_kind("store", store, NativeStore)
        self.network = network
        self.store = store
        self._inputs = {t.name: t for t in network.inputs if t.name and t.name not in network.weights_keys}
        # KV caches and constants, by the name of their kind in messages.
        self._bound: dict[str, dict[str, Any]] = {"KV cache": {}, "input": {}}
        self._programs: OrderedDict[object, Any] = OrderedDict()
        self._program: Any = self.program_type(network, store) if is_complete(network) else None

    def set_weights(self, weights: Mapping[str, Array]) -> None:
        check_some("weight", self.network, weights, self.network.weights_keys, "cpu")
        for name, value in weights.items():
            self.store.set(name, value)

    def set_weight_part(self, name: str, begin: int, value: Array) -> None:
        whole = check_part(self.network, name, begin, value, "cpu")[0]
        self.store.set_part(name, begin, value, whole)

    def set_kv_caches(self, caches: Mapping[str, Array]) -> None:
        self._bind("KV cache", caches, self.cache_device)

    def set_constants(self, inputs: Mapping[str, Array]) -> None:
        self._bind("input", inputs, "cpu")

    def _bind(self, what: str, values: Mapping[str, Array], device: str | None) -> None:
        check_some(what, self.network, values, self._inputs, device)
        for program in self.programs():
            program.bind(what, values)
        self._bound[what].update(values)

    def forward(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array] | None = None,
        runtime_params: Mapping[str, Array] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        inputs, outputs, runtime_params = check_call(inputs, outputs, runtime_params)
        program = self._program or self._specialized(inputs)
        results: dict[str, Any] = program.forward(inputs, outputs, runtime_params)
        return results

    def plan_info(self) -> dict[str, int]:
        """Returns sizes and counts of the last call's plan; raises EngineError before the first call."""
        programs = self.programs()
        if not programs:
            raise EngineError("there is no plan before the first forward() of a network with open shapes")
        return dict(programs[-1].handle.plan_info())

    def programs(self) -> list[Any]:
        """Returns the programs, the one that ran last at the end."""
        return [self._program] if self._program else list(self._programs.values())

    def _specialized(self, inputs: Mapping[str, Array]) -> Any:
        bound = {name: value for values in self._bound.values() for name, value in values.items()}
        names = [name for name in self._inputs if name not in bound]
        check_names("inputs", inputs, names)
        check_some("input", self.network, inputs, names, "cpu")
        values = {**inputs, **bound}
        key = tuple((name, tuple(values[name].shape), dtype_of(values[name])) for name in self._inputs)
        if key not in self._programs:
            self._programs[key] = self.specialize(values)
            if len(self._programs) > _MAX_PROGRAMS:
                self._programs.popitem(last=False)
        self._programs.move_to_end(key)
        return self._programs[key]

    def specialize(self, values: Mapping[str, Array]) -> Any:
        """Returns a program for the shapes of these inputs, with KV caches and constants bound."""
        check_weights_set(self.network, self.store)
        specs: dict[str, tuple[Sequence[int], DataType]] = {n: self.store.spec(n) for n in self.network.weights_keys}
        specs |= {name: (tuple(v.shape), dtype_of(v)) for name, v in values.items()}
        program = self.program_type(specialize(self.network, specs), self.store)
        for what, bound in self._bound.items():
            program.bind(what, bound)
        program.handle.set_recording(self._recording)
        return program

    def set_recording(self, on: bool) -> None:
        self._recording = bool(on)
        for program in self.programs():
            program.handle.set_recording(self._recording)

    def take_runs(self) -> list[RunTimes]:
        return [_run_times(one.network, self.clock, *run) for one in self.programs() for run in one.handle.take_runs()]


def _run_times(network: Network, clock: str, begin: int, end: int, steps: bytes, times: bytes) -> RunTimes:
    each, width = array("q", times), len(steps) // 2  # steps are int32; a step has two times
    threads = [each[first : first + width] for first in range(0, len(each), width)] if width else []
    return RunTimes(network, begin, end, array("i", steps), threads, clock)
